"""Where submitit enters a worker: a pickle that carries nothing but a path."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flexhpc.worker.signals import Stop
from flexhpc.worker.task import TaskFile


@dataclass(frozen=True)
class Task:
    """A worker, as submitit pickles it: importable, and with one path only."""

    path: str

    def __call__(self) -> int:
        """Work until no point is left; returns the number of points that failed.

        Signals are taken over before torch is imported, which takes seconds: in that time
        submitit's own handlers would requeue the job, or end it.
        """
        stop = Stop.on_signals()
        task = TaskFile.read(Path(self.path))
        from flexhpc.worker.work import work

        return work(task, stop)
