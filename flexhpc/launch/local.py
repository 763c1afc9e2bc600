"""Workers on this machine, through submitit's local executor."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import submitit

from flexhpc.launch.profile import Profile, visible_gpus
from flexhpc.launch.task import Task

_TEN_YEARS = 60 * 24 * 3650


class Workers:
    """The workers of one launch."""

    def __init__(self, jobs: list[Any]) -> None:
        self.jobs = jobs

    def running(self) -> int:
        """Return how many still run."""
        return sum(not job.done() for job in self.jobs)

    def logs(self) -> list[Path]:
        """Return the files that hold what they printed to stderr."""
        return [Path(job.paths.stderr) for job in self.jobs]


def start_workers(folder: Path, task: Path, count: int, profile: Profile) -> Workers:
    """Start ``count`` workers on one task.

    Args:
        folder: for submitit's files and the logs.
        task: the task's file.
        count: number of processes.
        profile: how to run them.
    """
    gpus = visible_gpus()
    executor = submitit.LocalExecutor(folder)
    jobs = []
    with _inherit_ignored_interrupt():
        for number in range(count):
            gpu = {"gpus_per_node": 1, "visible_gpus": [gpus[number % len(gpus)]]} if gpus else {}
            executor.update_parameters(timeout_min=_TEN_YEARS, **gpu)
            jobs.append(executor.submit(Task(str(task))))
    return Workers(jobs)


class _inherit_ignored_interrupt:
    """Start processes that a Ctrl-C in the terminal does not hit: the sweep tells them itself.

    submitit's controller would otherwise give a worker one second to save its state.
    """

    def __enter__(self) -> None:
        self.main = threading.current_thread() is threading.main_thread()
        if self.main:
            self.before = signal.signal(signal.SIGINT, signal.SIG_IGN)

    def __exit__(self, *_: object) -> None:
        if self.main:
            signal.signal(signal.SIGINT, self.before)
