"""Entry points of workers: a function for local workers, and a callable that submitit pickles."""

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
    """Measure points until none is left or a stop is requested.

    Args:
        path: path of the task file.
        environment: distributed environment of this process.
        stop: stop request. Its signal handlers must be installed before the call, because this
            function imports torch, which takes seconds, and must not miss a signal meanwhile.

    Returns:
        The number of points that failed; 0 on all ranks except rank 0.

    Raises:
        SystemExit: with status 1 if the task file is missing or invalid, or in the cases that
            :func:`flexhpc.worker.worker.run_task` lists.
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
        stop = StopRequest.for_signals()
        return run_worker(Path(self.path), Environment.from_slurm(), stop)
