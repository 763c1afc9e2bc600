"""Workers on this machine, through submitit's local executor."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import submitit

from flexhpc.launch.machine import visible_gpus
from flexhpc.launch.profile import LocalProfile
from flexhpc.versions import image
from flexhpc.worker.entry import Task
from flexhpc.worker.task import PROBES_AT_ONCE, WORKER_GPU

_TEN_YEARS = 60 * 24 * 3650


class LocalBackend:
    """Workers of one launch; each takes whatever point of the run is free.

    Args:
        folder: of the launch: submitit's files, logs, and the task.
        profile: how many workers, of how many processes.
    """

    shared = True
    ours = True
    patience = 5
    """Once is no reason to give a point up: another sweep may have held every point."""

    def __init__(self, folder: Path, profile: LocalProfile) -> None:
        self.folder, self.profile = folder, profile
        self.image = image()
        self._jobs: list[Any] = []
        self._running = 0

    def poll(self) -> None:
        """Count the workers that run."""
        self._running = sum(not job.done() for job in self._jobs)

    def covers(self, point_id: str) -> bool:
        """Any worker comes to any point."""
        return self._running > 0

    def running(self) -> bool:
        """Return whether a worker runs."""
        return self._running > 0

    def crashed(self) -> bool:
        """Return whether one of the last workers did not end well."""
        return any(job.done() and _crashed(job) for job in self._jobs)

    def start(self, points: Sequence[str]) -> bool:
        """Start workers."""
        count, at_once = self.profile.spread(len(points))
        processes = self.profile.processes_per_node
        each = processes * at_once
        gpus = visible_gpus()
        executor = submitit.LocalExecutor(self.folder)
        executor.update_parameters(timeout_min=_TEN_YEARS, tasks_per_node=processes)
        task = Task(str(self.folder / "task.json"))
        self._jobs = []
        with _apart_from_terminal(self.folder / "controllers.log"):
            for number in range(count):
                ids = [gpus[(number * each + i) % len(gpus)] for i in range(each)] if gpus else []
                with _told_workers(",".join(dict.fromkeys(ids)), at_once):
                    self._jobs.append(executor.submit(task))
        self._running = len(self._jobs)
        return True

    def waiting(self) -> Mapping[str, str]:
        """Nothing queues on this machine."""
        return {}

    def log(self, point_id: str) -> str:
        """Return the folder of all logs: which worker died over a point is not known."""
        return str(self.folder)

    def note(self) -> str:
        """Nothing to say."""
        return ""

    def summary(self) -> str:
        """Return how many workers were started."""
        return f"{len(self._jobs)} workers started"


def _crashed(job: Any) -> bool:
    if not job.paths.result_pickle.exists():  # where submitit would wait for it, a quarter minute
        return True
    try:
        return job.exception() is not None
    except Exception:
        return True


@contextlib.contextmanager
def _told_workers(gpus: str, at_once: int) -> Iterator[None]:
    """Tell a worker of its GPUs and probes by its environment, as they differ between workers.

    Of GPUs submitit itself passes numbers only, no ids.
    """
    os.environ |= {WORKER_GPU: gpus, PROBES_AT_ONCE: str(at_once)}
    try:
        yield
    finally:
        del os.environ[WORKER_GPU], os.environ[PROBES_AT_ONCE]


@contextlib.contextmanager
def _apart_from_terminal(log: Path) -> Iterator[None]:
    """Start processes that neither a Ctrl-C nor the end of the terminal hits, nor write to it.

    The sweep stops its workers itself: submitit's controller would give them one second to save
    their state. A pipe that our output goes to must not stay open in detached workers either.
    """
    main = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGHUP) if main else ()
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(stream) for stream in (1, 2)]
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        for stream, copy in zip((1, 2), saved, strict=True):
            os.dup2(copy, stream)
            os.close(copy)
        for number, handler in before.items():
            signal.signal(number, handler)
