"""Faults of a machine: its disk, its power, its clock."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from tests.faults.site import Kind, Outcome, Site, Unavailable


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[Callable[[str], None]]:
    """Mount a small file system; yields what mounts it again with other options."""
    folder.mkdir(parents=True, exist_ok=True)

    def mount(how: str) -> None:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", how, "none", str(folder)], check=False,
            capture_output=True,
        )  # fmt: skip
        if done.returncode:
            raise Unavailable("mounting needs root")

    mount(options)
    try:
        yield lambda how: mount(f"remount,{how}")
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def on_small_disk(too_small: Callable[[int], str], enough: str, error: str) -> Kind:
    """Return a fault in which a file system has too little of something, until it is given more."""

    def fault(site: Site, times: int) -> Outcome:
        with mounted(site.folder / "runs", too_small(0)) as again:
            for number in range(times):
                again(too_small(number))
                sweep = site.start()
                output = site.finish(sweep)
                site.outcome.tried += sweep.returncode != 0
                points = [line for line in output.splitlines() if ": failed " in line]
                named = error in output and all(" be written" in line for line in points)
                site.must_say(named or not sweep.returncode, output)
                site.note_probes()
            again(enough)
            return site.conclude()

    fault.__doc__ = f"{error} while points are measured; then there is room."
    return fault


def read_only(site: Site, times: int) -> Outcome:
    """The file system becomes read-only in the middle; later it can be written again."""
    with mounted(site.run / "points", "size=50m") as again:
        for _ in range(times):
            sweep = site.start()
            site.hold(sweep)
            for _ in range(200):  # not while a heartbeat is written
                with contextlib.suppress(Unavailable):
                    again("ro")
                    site.outcome.tried += 1
                    break
                time.sleep(0.01)
            output = site.finish(sweep)
            site.must_say("Read-only file system" in output or not sweep.returncode, output)
            again("rw")
            site.note_probes()
        return site.conclude()


def failing_writes(number: int) -> Kind:
    """Return a fault in which one of some writes, syncs and renames fails."""
    return _striking(str(number), "40", f"One of forty writes fails: {os.strerror(number)}.")


def _striking(error: str, one_in: str, description: str) -> Kind:
    def fault(site: Site, times: int) -> Outcome:
        for _ in range(times):
            site.finish(site.start(**faulty(site, WITH=error, ONE_IN=one_in)))
            site.outcome.tried += struck(site)
            site.note_probes()
        return site.conclude()

    fault.__doc__ = description
    return fault


power_failure = _striking(
    "power", "15",
    "The power fails at a rename: of what was not synced before, only the name is there.",
)  # fmt: skip


def slow_disk(site: Site, times: int) -> Outcome:
    """Every write, sync and rename takes a hundredth of a second, and workers are killed."""
    for _ in range(times):
        sweep = site.start(**faulty(site, SLOW="0.01"))
        site.strike(sweep, signal.SIGKILL)
        site.finish(sweep)
        site.note_probes()
    return site.conclude()


def host_comes_back(site: Site, times: int) -> Outcome:
    """Another host, whose clock is a day off, stands still until it is replaced, and comes back.

    Takes as long as its silence is believed to be a pause.
    """
    for _ in range(times):
        site.begin_anew()
        day = int(site.rng.choice((-86_400, 86_400)))
        away = site.start(**faulty(site, CLOCK=str(day), HOST="elsewhere"))
        if not site.hold(away):
            break
        there = [psutil.Process(away.pid), *psutil.Process(away.pid).children(recursive=True)]
        for process in there:
            process.suspend()
        site.outcome.tried += 1
        site.finish(site.start())
        site.note_probes()
        for process in there:
            with contextlib.suppress(psutil.Error):
                process.resume()
        site.finish(away)
        site.note_probes()
    return site.conclude()


def faulty(site: Site, **keys: str) -> dict[str, str]:
    """Return the environment of a machine with a fault, as faulty_machine.c names it."""
    named = {f"FAULTY_{key}": value for key, value in keys.items()}
    return {
        "LD_PRELOAD": str(_compiled()), "FAULTY": str(site.run / "points"),
        "FAULTY_STRIKES": str(_strikes(site)), **named,
    }  # fmt: skip


def _strikes(site: Site) -> Path:
    return site.folder / "strikes"


def struck(site: Site) -> int:
    """Return how often the machine failed since it was last asked."""
    try:
        count = _strikes(site).stat().st_size
        _strikes(site).unlink()
    except FileNotFoundError:
        return 0
    return count


def _compiled() -> Path:
    """Return the library that makes a machine faulty."""
    if (compiler := shutil.which("gcc") or shutil.which("cc")) is None:
        raise Unavailable("a C compiler is needed")
    source = Path(__file__).with_name("faulty_machine.c")
    version = hashlib.sha256(source.read_bytes()).hexdigest()[:12]
    name = f"flexhpc-faulty-machine-{os.getuid()}-{os.getpid()}-{version}.so"
    library = Path(tempfile.gettempdir()) / name
    if not library.exists():
        atexit.register(library.unlink, missing_ok=True)
        command = [compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
        subprocess.run(command, check=True)
    return library
