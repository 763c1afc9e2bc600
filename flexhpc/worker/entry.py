"""Entry points of a worker process: a function, and a callable that submitit pickles."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from flexhpc.errors import PointError
from flexhpc.imports import imports_without_gc
from flexhpc.worker.environment import Environment
from flexhpc.worker.signals import StopRequest
from flexhpc.worker.task import TaskFile


def run_worker(path: Path, environment: Environment, stop: StopRequest) -> int:
    """Measure points until none is left; return the number of points that failed.

    Args:
        path: path of the task file.
        environment: distributed environment of this process.
        stop: stop request. Its signal handlers must be installed before the call, because this
            function imports torch, which takes seconds, and no signal may be lost meanwhile.

    Raises:
        SystemExit: with status 1 if the task file is missing or invalid;
            :func:`flexhpc.worker.worker.run_task` lists further causes.
    """
    try:
        task = TaskFile.read(path)
    except PointError as error:
        print(error, file=sys.stderr)
        raise SystemExit(1) from None
    with imports_without_gc():
        from flexhpc.worker.worker import run_task

    return run_task(task, environment, stop)


@dataclass(frozen=True)
class ArrayTask:
    """Callable that submitit pickles and runs in each task of an array.

    Attributes:
        path: path of the task file.
    """

    path: str

    def __call__(self) -> int:
        """Measure points until none is left; return the number of points that failed.

        The signal handlers of submitit, which would requeue or cancel the job, are replaced first.
        """
        stop = StopRequest.set_by_signals()
        return run_worker(Path(self.path), Environment.from_slurm(), stop)
