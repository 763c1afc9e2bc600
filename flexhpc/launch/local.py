"""Workers on this machine, through submitit's local executor."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import submitit

from flexhpc.launch.entry import Task
from flexhpc.launch.profile import WORKER_GPU, visible_gpus

_TEN_YEARS = 60 * 24 * 3650


class Workers:
    """The workers of one launch."""

    def __init__(self, jobs: list[Any]) -> None:
        self.jobs = jobs

    def running(self) -> int:
        """Return how many still run."""
        return sum(not job.done() for job in self.jobs)

    def crashed(self) -> bool:
        """Return whether one of those that ended did not end well."""
        return any(job.done() and _crashed(job) for job in self.jobs)


def _crashed(job: Any) -> bool:
    try:
        return job.exception() is not None
    except Exception:
        return True


def start_workers(folder: Path, task: Path, count: int) -> Workers:
    """Start ``count`` workers on one task.

    Args:
        folder: for submitit's files and the logs.
        task: the task's file.
        count: number of processes.
    """
    gpus = visible_gpus()
    executor = submitit.LocalExecutor(folder)
    executor.update_parameters(timeout_min=_TEN_YEARS)
    jobs = []
    with _apart_from_terminal(folder / "controllers.log"):
        for number in range(count):
            with _worker_gpu(gpus[number % len(gpus)] if gpus else ""):
                jobs.append(executor.submit(Task(str(task))))
    return Workers(jobs)


@contextlib.contextmanager
def _worker_gpu(name: str) -> Iterator[None]:
    """Name a worker's GPU in its environment; submitit itself passes numbers only, no ids."""
    os.environ[WORKER_GPU] = name
    try:
        yield
    finally:
        del os.environ[WORKER_GPU]


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
