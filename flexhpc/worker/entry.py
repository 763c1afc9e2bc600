"""Where a worker begins; for submitit a pickle that carries nothing but a path."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from flexhpc.errors import PointError
from flexhpc.imports import quick_imports
from flexhpc.worker.place import Place
from flexhpc.worker.signals import Stop
from flexhpc.worker.task import TaskFile


def begin(path: Path, place: Place, stop: Stop) -> int:
    """Work until no point is left; returns the number of points that failed.

    Args:
        path: of the task's file; place: of this process in its job.
        stop: set by signals from now on: importing torch takes seconds.

    Raises:
        SystemExit: with 1 if the file is damaged; see :func:`flexhpc.worker.work.work`.
    """
    try:
        task = TaskFile.read(path)
    except PointError as error:
        print(error, file=sys.stderr)
        raise SystemExit(1) from None
    with quick_imports():
        from flexhpc.worker.work import work

    return work(task, place, stop)


@dataclass(frozen=True)
class Task:
    """A worker, as submitit pickles it: importable, and with one path only."""

    path: str

    def __call__(self) -> int:
        """Work until no point is left; returns the number of points that failed.

        Signals are taken over first: submitit's own handlers would requeue the job, or end it.
        """
        stop = Stop.on_signals()
        return begin(Path(self.path), Place.here(), stop)
