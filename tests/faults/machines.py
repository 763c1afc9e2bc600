"""Faults of a machine: its disk, power and clock."""

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

from tests.faults.site import Fault, Outcome, Site, Unavailable


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[Callable[[str], None]]:
    """Mount a small file system; yield a function that remounts it with other options."""
    folder.mkdir(parents=True, exist_ok=True)

    def mount(options: str) -> None:
        result = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], check=False,
            capture_output=True,
        )  # fmt: skip
        if result.returncode:
            raise Unavailable("mounting needs root")

    mount(options)
    try:
        yield lambda options: mount(f"remount,{options}")
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def on_small_disk(too_small: Callable[[int], str], sufficient: str, error: str) -> Fault:
    """Return a fault in which a file system lacks space or inodes until it is remounted."""

    def fault(site: Site, faults: int) -> Outcome:
        with mounted(site.folder / "runs", too_small(0)) as remount:
            for number in range(faults):
                remount(too_small(number))
                sweep = site.start()
                output = site.finish(sweep)
                site.outcome.faults += sweep.returncode != 0
                points = [line for line in output.splitlines() if ": failed" in line]
                reported = error in output and all(" be written" in line for line in points)
                site.expect(reported or not sweep.returncode, output)
            remount(sufficient)
            return site.resume_and_compare()

    return fault


def read_only(site: Site, faults: int) -> Outcome:
    """Remount the file system read-only during a probe, and writable afterwards."""
    with mounted(site.run / "points", "size=50m") as remount:
        for _ in range(faults):
            sweep = site.start()
            site.hold(sweep)
            for _ in range(200):  # remounting fails while a heartbeat is written
                with contextlib.suppress(Unavailable):
                    remount("ro")
                    site.outcome.faults += 1
                    break
                time.sleep(0.01)
            output = site.finish(sweep)
            site.expect("Read-only file system" in output or not sweep.returncode, output)
            remount("rw")
        return site.resume_and_compare()


def failing_writes(error: int | str, one_in: int = 40) -> Fault:
    """Return a fault in which one of ``one_in`` writes, syncs and renames fails.

    Args:
        error: an errno, or ``power``.
    """

    def fault(site: Site, faults: int) -> Outcome:
        for _ in range(faults):
            site.finish(site.start(**faulty(site, WITH=str(error), ONE_IN=str(one_in))))
            site.outcome.faults += count_failures(site)
        return site.resume_and_compare()

    return fault


power_failure = failing_writes("power", 15)
"""Power fails at a rename: a file that was not synced before is empty afterwards."""


def slow_disk(site: Site, faults: int) -> Outcome:
    """Every write, sync and rename takes 0.01 s, and workers are killed."""
    for _ in range(faults):
        sweep = site.start(**faulty(site, SLOW="0.01"))
        site.signal_worker(sweep, signal.SIGKILL)
        site.finish(sweep)
    return site.resume_and_compare()


def host_returns(site: Site, faults: int) -> Outcome:
    """Suspend a sweep on another host, whose clock is off by a day, until it is replaced.

    Takes as long as the claim of a suspended host is valid.
    """
    for _ in range(faults):
        site.remove_run()
        day = int(site.rng.choice((-86_400, 86_400)))
        remote = site.start(**faulty(site, CLOCK=str(day), HOST="elsewhere"))
        if not site.hold(remote):
            break
        parent = psutil.Process(remote.pid)
        processes = [parent, *parent.children(recursive=True)]
        for process in processes:
            process.suspend()
        site.outcome.faults += 1
        site.finish(site.start())
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.resume()
        site.finish(remote)
    return site.resume_and_compare()


def faulty(site: Site, **variables: str) -> dict[str, str]:
    """Return the environment of a faulty machine; faulty_machine.c documents the variables."""
    return {
        "LD_PRELOAD": str(_compiled()), "FAULTY": str(site.run / "points"),
        "FAULTY_FAILURES": str(site.folder / "failures"),
        **{f"FAULTY_{name}": value for name, value in variables.items()},
    }  # fmt: skip


def count_failures(site: Site) -> int:
    """Return the number of failures of the machine since the last call."""
    failures = site.folder / "failures"
    count = failures.stat().st_size if failures.exists() else 0
    failures.unlink(missing_ok=True)
    return count


def _compiled() -> Path:
    """Return the compiled faulty_machine.c."""
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
