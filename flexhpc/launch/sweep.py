"""A sweep on this machine: workers, the live table, tracking beside it, and a clean stop."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from flexhpc.analysis.board import Board, PointStatus
from flexhpc.launch.live import View
from flexhpc.launch.local import Workers, start_workers
from flexhpc.launch.prepare import Prepared, open_folder
from flexhpc.launch.profile import Profile
from flexhpc.launch.task import Owner, TaskFile
from flexhpc.store import RunFolder
from flexhpc.store.files import write_atomic
from flexhpc.tracking.state import up_to_date

_LOOK_EVERY = 0.5
_STOP_WITHIN = 120.0
_IDLE_ROUNDS = 5
_SYNC_AFTER_FAILURE = 15.0


class _Stop:
    """Set by Ctrl-C or SIGTERM; a second one ends the wait for the workers."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, *_: object) -> None:
        self.count += 1


@contextlib.contextmanager
def _stop_signals() -> Iterator[_Stop]:
    stop = _Stop()
    before = {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def launch_id() -> str:
    """Return a new launch id: its time and process."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"


def start(prepared: Prepared, profile: Profile, launch: str, *, detach: bool) -> TaskFile:
    """Write the run folder and the task of a launch."""
    open_folder(prepared, launch)
    folder = prepared.run.jobs / launch
    spec = folder / "sweep.yaml"
    write_atomic(spec, prepared.frozen)
    task = TaskFile(
        run=str(prepared.run.path),
        spec=str(spec),
        launch=launch,
        stop=str(folder / "stop"),
        owner=None if detach else Owner.of(os.getpid()),
        threads=profile.cpus_per_process,
        retries=profile.retries,
        checkpoint_every=profile.checkpoint_every,
    )
    task.write(folder / "task.json")
    return task


def detached(prepared: Prepared, profile: Profile) -> int:
    """Start workers that outlive this process; returns how many."""
    launch = launch_id()
    start(prepared, profile, launch, detach=True)
    folder = prepared.run.jobs / launch
    count = min(profile.worker_count(), len(prepared.points))
    start_workers(folder, folder / "task.json", count)
    return count


def follow(
    prepared: Prepared, profile: Profile, console: Console
) -> tuple[list[PointStatus], bool]:
    """Measure every point that is not measured yet, and watch it.

    Returns:
        The status of every point, and whether the sweep was interrupted.
    """
    run, launch = prepared.run, launch_id()
    board = Board(run, prepared.points)
    statuses = board.look()
    finished = all(status.state == "done" for status in statuses)
    tracking = profile.tracking_uri
    tracked = tracking == "none" or up_to_date(run, tracking, statuses)
    if finished and prepared.again and tracked:
        return statuses, False
    task = start(prepared, profile, launch, detach=False)
    with (
        _stop_signals() as stop,
        _tracking(task, profile, stop),
        View(console, run.name) as view,
    ):
        crew = _Crew(run, launch, profile)
        stop_file = Path(task.stop)
        while not (stop.count or stop_file.exists()):
            crew.count_running()
            statuses = board.look()
            view.update(statuses, note=_elsewhere(statuses, launch))
            todo = [s for s in statuses if not _finished(s, launch)]
            if not todo or not crew.keep_going(todo, statuses):
                break
            time.sleep(_LOOK_EVERY)
        interrupted = bool(stop.count) or stop_file.exists()
        if interrupted:
            crew.stop(view, board, stop)
            statuses = board.look()
    return statuses, interrupted


class _Crew:
    """The workers of one launch; new ones are started while there is work that nobody does."""

    def __init__(self, run: RunFolder, launch: str, profile: Profile) -> None:
        self.folder = run.jobs / launch
        self.profile = profile
        self.workers: Workers | None = None
        self.running = 0
        self.reached: tuple[object, ...] = ()
        self.idle_rounds = 0

    def count_running(self) -> None:
        """Count workers before the board is read, so that what they finished is seen."""
        self.running = self.workers.running() if self.workers else 0

    def keep_going(self, todo: Sequence[PointStatus], statuses: Sequence[PointStatus]) -> bool:
        """Start workers if none runs and points are free.

        Returns:
            False if the last round did nothing and another would do no better: its workers crashed
            before they claimed a point, or several rounds ended well without one. (Once is no
            reason: they may have found every point claimed by another sweep.) A worker that dies
            over a point leaves its claim behind, which counts its deaths.
        """
        free = [status for status in todo if status.state != "running"]
        if self.running or not free:
            return True
        reached = (
            sum(s.probes for s in statuses),
            sum(s.state == "done" for s in statuses),
            *(s.token for s in statuses),
        )
        self.idle_rounds = self.idle_rounds + 1 if reached == self.reached else 0
        crashed = self.workers is not None and self.workers.crashed()
        if self.idle_rounds >= (1 if crashed else _IDLE_ROUNDS):
            return False
        self.reached = reached
        count = min(self.profile.worker_count(), len(free))
        self.workers = start_workers(self.folder, self.folder / "task.json", count)
        return True

    def stop(self, view: View, board: Board, stop: _Stop) -> None:
        """Ask the workers to save and end, and wait for them unless asked again."""
        with contextlib.suppress(OSError):
            (self.folder / "stop").touch()
        end = time.monotonic() + _STOP_WITHIN
        while self.workers and self.workers.running() and time.monotonic() < end:
            if stop.count > 1:
                return
            view.update(board.look(), note="stopping: saving the probes in hand ...")
            time.sleep(_LOOK_EVERY / 2)


def _finished(status: PointStatus, launch: str) -> bool:
    return status.state == "done" or (status.state == "failed" and status.launch == launch)


def _elsewhere(statuses: Sequence[PointStatus], launch: str) -> str:
    others = sum(s.state == "running" and s.launch != launch for s in statuses)
    return f"{others} measured by another sweep" if others else ""


@contextlib.contextmanager
def _tracking(task: TaskFile, profile: Profile, stop: _Stop) -> Iterator[None]:
    """Keep MLflow up to date from a process beside us; at the end wait until it has caught up.

    The wait ends early on another Ctrl-C, or when the server does not answer.
    """
    if profile.tracking_uri == "none":
        yield
        return
    log = Path(task.spec).with_name("tracking.log")
    command = [sys.executable, "-m", "flexhpc.tracking.follow", task.run, task.spec]
    if profile.tracking_uri:
        command.append(profile.tracking_uri)
    with log.open("w") as output:
        follower = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield
    finally:
        assert follower.stdin is not None
        follower.stdin.close()
        began, asked = time.monotonic(), stop.count
        while follower.poll() is None:
            failing = "warning: " in log.read_text(errors="replace")
            late = time.monotonic() - began > _SYNC_AFTER_FAILURE
            if stop.count > asked or (failing and late):
                follower.kill()
                follower.wait()
            time.sleep(0.1)


def tracking_warnings(run: RunFolder) -> list[str]:
    """Return what tracking had to say in the last launch."""
    logs = sorted(run.jobs.glob("*/tracking.log"), key=lambda path: path.stat().st_mtime)
    if not logs:
        return []
    lines = logs[-1].read_text(errors="replace").splitlines()
    return list(dict.fromkeys(line for line in lines if line.startswith("warning: ")))


def log_tail(folder: Path, lines: int = 12) -> list[str]:
    """Return the last lines that the workers of a launch printed to stderr."""
    tail: list[str] = []
    for path in sorted(folder.glob("*_log.err")):
        text = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
        tail += text[-lines:]
    return tail[-lines:]
