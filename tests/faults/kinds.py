"""The kinds of faults: what befalls a sweep, and how it is helped afterwards."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil

from tests.faults.site import Outcome, Site, end

Kind = Callable[[Site, int], Outcome]


class Unavailable(Exception):
    """This machine cannot have such a fault."""


def killed_worker(site: Site, times: int) -> Outcome:
    """SIGKILL a worker in the middle of a probe; the sweep replaces it."""
    sweep = site.start()
    for _ in range(times):
        if not site.wait(sweep, site.working):
            break
        site.somewhere(0.4)
        for pid in site.working()[:1]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
                site.outcome.tried += 1
        site.note_probes()
    site.finish(sweep)
    return site.conclude()


def killed_everything(site: Site, times: int) -> Outcome:
    """SIGKILL the sweep, its workers and its follower at once; the command is repeated."""
    for _ in range(times):
        sweep = site.start()
        site.wait(sweep, site.working)
        site.somewhere(1.0)
        site.outcome.tried += sweep.poll() is None
        end(sweep)
        site.note_probes()
    return site.conclude()


def killed_follower(site: Site, times: int) -> Outcome:
    """SIGKILL what keeps MLflow up to date; the next command brings the rest in, each once."""
    site.profile()
    for _ in range(times):
        site.begin_anew()
        sweep = site.start()

        def followers(sweep: subprocess.Popen[str] = sweep) -> list[psutil.Process]:
            children = psutil.Process(sweep.pid).children() if sweep.poll() is None else []
            return [one for one in children if "flexhpc.tracking.follow" in one.cmdline()]

        site.wait(sweep, lambda: followers() and (site.run / "mlflow.db").exists())
        site.somewhere(2.0)
        with contextlib.suppress(psutil.Error):
            for follower in followers():
                follower.kill()
                site.outcome.tried += 1
        site.finish(sweep)
    site.conclude()
    site.tracked_once()
    return site.outcome


def killed_rank(site: Site, times: int) -> Outcome:
    """SIGKILL one of two processes that train a probe together."""
    site.profile("tracking_uri: none", "processes_per_node: 2", workers=1)
    sweep = site.start()
    for _ in range(times):
        if not site.wait(sweep, site.working):
            break
        site.somewhere(1.0)
        servers = psutil.Process(sweep.pid).children() if sweep.poll() is None else []
        ranks = [rank for server in servers for rank in server.children()]
        if ranks:
            with contextlib.suppress(psutil.Error):
                ranks[int(site.rng.integers(len(ranks)))].kill()
                site.outcome.tried += 1
        site.note_probes()
    site.finish(sweep)
    return site.conclude()


def stopped_worker(site: Site, times: int) -> Outcome:
    """SIGSTOP a worker for a while: it holds its claim, nobody else may write."""
    sweep = site.start()
    for _ in range(times):
        if not site.wait(sweep, site.working):
            break
        for pid in site.working()[:1]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 19)
                site.outcome.tried += 1
                site.somewhere(1.0)
                os.kill(pid, 18)
    site.finish(sweep)
    return site.conclude()


def two_sweeps(site: Site, times: int) -> Outcome:
    """Two commands for one run at once, one of which is killed."""
    for _ in range(times):
        first, second = site.start(), site.start()
        site.wait(first, site.working)
        site.somewhere(1.0)
        site.outcome.tried += 1
        end(first)
        site.finish(second)
        site.note_probes()
    return site.conclude()


def damaged_point_file(site: Site, times: int) -> Outcome:
    """Flip a bit of a point's file, or cut it: its point fails in a line until it is moved away."""
    for _ in range(times):
        site.finish(site.start())
        site.note_probes()
        files = sorted(site.run.glob("points/*/*.h5"))
        path = files[int(site.rng.integers(len(files)))]
        harm(path, site)
        site.outcome.tried += 1
        sweep = site.start()
        said = site.finish(sweep)
        if sweep.returncode not in (0, 1) or (sweep.returncode and "not a readable" not in said):
            site.outcome.wrong += 1
        if sweep.returncode:
            path.unlink()
            site.forget(path.stem)
    return site.conclude()


def damaged_checkpoint(site: Site, times: int) -> Outcome:
    """Flip a bit of a checkpoint, or cut it, while nobody is at work: never trained on."""
    for _ in range(times):
        sweep = site.start()
        site.wait(sweep, lambda: list(site.run.glob("points/*/*.ckpt")))
        site.somewhere(0.5)
        end(sweep)
        site.note_probes()
        for path in site.run.glob("points/*/*.ckpt"):
            harm(path, site)
            site.outcome.tried += 1
    return site.conclude()


def harm(path: Path, site: Site) -> None:
    """Flip one bit of a file, or cut it off, at a random place."""
    content = bytearray(path.read_bytes())
    at = int(site.rng.integers(len(content)))
    if site.rng.random() < 0.5:
        content[at] ^= 1 << int(site.rng.integers(8))
    else:
        del content[at:]
    path.write_bytes(content)


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
                said = site.finish(sweep)
                site.outcome.tried += sweep.returncode != 0
                if sweep.returncode and error not in said:
                    site.outcome.wrong += 1
                    site.outcome.said.append(said[-300:])
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
            site.wait(sweep, site.working)
            site.somewhere(1.0)
            for _ in range(200):  # not while somebody is just writing
                with contextlib.suppress(Unavailable):
                    again("ro")
                    site.outcome.tried += 1
                    break
                time.sleep(0.01)
            site.somewhere(2.0)
            if sweep.poll() is None:
                end(sweep)
            again("rw")
            site.note_probes()
        return site.conclude()


def failing_writes(number: int) -> Kind:
    """Return a fault in which one of some writes, syncs and renames fails."""

    def fault(site: Site, times: int) -> Outcome:
        library = _compiled()
        for _ in range(times):
            sweep = site.start(
                LD_PRELOAD=str(library), FAILING=str(site.run / "points"),
                FAILING_WITH=str(number), FAILING_ONE_IN="40",
            )  # fmt: skip
            site.finish(sweep)
            site.outcome.tried += 1
            site.note_probes()
        return site.conclude()

    fault.__doc__ = f"One of forty writes fails: {os.strerror(number)}."
    return fault


def _compiled() -> Path:
    """Return the library that lets writes fail."""
    if (compiler := shutil.which("gcc") or shutil.which("cc")) is None:
        raise Unavailable("a C compiler is needed")
    library = Path(tempfile.gettempdir()) / f"flexhpc-failing-disk-{os.getuid()}-{os.getpid()}.so"
    if not library.exists():
        source = Path(__file__).with_name("failing_disk.c")
        command = [compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
        subprocess.run(command, check=True)
    return library


class _Unwilling(BaseHTTPRequestHandler):
    """A tracking server that says it is broken, after a while."""

    slow = 0.0

    def _answer(self) -> None:
        time.sleep(self.slow)
        self.send_response(500)
        self.end_headers()

    do_GET = do_POST = _answer  # names of http.server

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def bad_server(site: Site, times: int) -> Outcome:
    """The tracking server is down, broken, or slow: a warning; `flexhpc sync` has it all later."""
    for number in range(times):
        with contextlib.ExitStack() as stack:
            if number % 3:
                handler = type("Handler", (_Unwilling,), {"slow": 3.0 if number % 3 == 2 else 0.0})
                server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), handler))
                threading.Thread(target=server.serve_forever, daemon=True).start()
                stack.callback(server.shutdown)
                port = server.server_port
            else:
                with socket.socket() as unused:
                    unused.bind(("127.0.0.1", 0))
                    port = unused.getsockname()[1]
            site.profile(f"tracking_uri: http://127.0.0.1:{port}")
            site.begin_anew()
            sweep = site.start(MLFLOW_HTTP_REQUEST_MAX_RETRIES="0", MLFLOW_HTTP_REQUEST_TIMEOUT="5")
            said = site.finish(sweep)
            site.outcome.tried += 1
            if sweep.returncode or "warning: MLflow" not in said:
                site.outcome.wrong += 1
                site.outcome.said.append(said[-300:])
            site.note_probes()
    site.profile()
    site.conclude()
    site.tracked_once()
    return site.outcome


KINDS: dict[str, Kind] = {
    "killed worker": killed_worker,
    "killed everything": killed_everything,
    "killed follower": killed_follower,
    "killed rank": killed_rank,
    "stopped worker": stopped_worker,
    "two sweeps, one killed": two_sweeps,
    "damaged point file": damaged_point_file,
    "damaged checkpoint": damaged_checkpoint,
    "full disk": on_small_disk(lambda i: f"size={140 + 40 * i}k", "size=50m", "No space left"),
    "no inodes": on_small_disk(
        lambda i: f"size=50m,nr_inodes={22 + 3 * i}", "size=50m,nr_inodes=10000", "No space left"
    ),
    "read-only disk": read_only,
    "failing disk": failing_writes(errno.EIO),
    "disk full now and then": failing_writes(errno.ENOSPC),
    "tracking server down, broken, slow": bad_server,
}
