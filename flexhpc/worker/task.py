"""Task file: the input of a worker."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict

from flexhpc.atomic import write_json
from flexhpc.errors import PointError
from flexhpc.state_file import read_state
from flexhpc.store import RunFolder
from flexhpc.store.claim import process_is_alive, process_start_time

WORKER_GPU = "FLEXHPC_GPU"
"""Environment variable that lists the GPUs of a worker, in the format of CUDA_VISIBLE_DEVICES."""
TASK_FILE = "task.json"
PROBES_AT_ONCE = "FLEXHPC_PROBES_AT_ONCE"
"""Environment variable that sets how many probes of one point a worker trains concurrently."""


@dataclass(frozen=True, kw_only=True)
class ProcessIdentity:
    """Id and start time of a process, which distinguish it from a later process with the same id.

    Attributes:
        pid: process id.
        birth: start time of the process (seconds since the system booted); 0 if the process had
            ended when the start time was read.
    """

    pid: int
    birth: float

    @classmethod
    def of_pid(cls, pid: int) -> ProcessIdentity:
        """Return the identity of the process that has this id now."""
        return cls(pid=pid, birth=process_start_time(pid) or 0.0)

    def is_alive(self) -> bool:
        """Return whether the process is still running."""
        return process_is_alive(self.pid, self.birth)


@dataclass(frozen=True, kw_only=True)
class TaskFile:
    """Content of a task file.

    Attributes:
        run: path of the run folder.
        spec: path of the frozen spec of this launch.
        launch: id of the launch.
        stop: path of the stop file; workers stop when it exists.
        python: Python version of the submitting process, such as ``3.11``; workers must have the
            same version.
        flexhpc: flexhpc version of the submitting process; workers must have the same version.
        owner: process that started the workers; the workers stop when it ends. None if the workers
            continue when the process that started them ends.
        threads: number of CPU threads per process.
        probes_at_once: number of probes of one point that a worker trains concurrently; the
            environment variable ``FLEXHPC_PROBES_AT_ONCE`` takes precedence.
        retries: maximum number of consecutive retries of a point whose worker died without
            progress.
        checkpoint_every: time between checkpoints (seconds).
        heartbeat_every: time between heartbeats (seconds).
        points: ids of the points of a job array, ``per_task`` consecutive ids for each task. None
            if the workers claim any free point of the run.
        per_task: number of points per task of the job array.
        selection: dict whose keys are the ids of the points to measure. A value is True if the
            point is measured to the tolerance of the spec, and False if a coarse estimate is
            sufficient. None if all points are measured with the search of the spec.
        stop_before: time before the end of the allocation at which workers stop (seconds).
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    run: str
    spec: str
    launch: str
    stop: str
    python: str
    flexhpc: str
    owner: ProcessIdentity | None
    threads: int
    probes_at_once: int
    retries: int
    checkpoint_every: float
    heartbeat_every: float = 1.0
    points: list[str] | None = None
    per_task: int = 1
    selection: dict[str, bool] | None = None
    stop_before: float = 0.0

    def points_of_task(self, index: int) -> list[str] | None:
        """Return the ids of the points of an array task; None if the workers are not in an array.

        Args:
            index: index of the array task.
        """
        if self.points is None:
            return None
        return self.points[index * self.per_task : (index + 1) * self.per_task]

    def write(self, path: Path) -> None:
        """Write the task file as JSON."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> TaskFile:
        """Read a task file.

        Raises:
            PointError: the file is missing or invalid, or has unknown keys.
        """
        task = read_state(cls, path)
        if task is None:
            raise PointError(
                f"{path}: is missing, is corrupt, or was written by another version of flexhpc; "
                "run the same `flexhpc sweep` command again"
            )
        return task


def current_selection(run: RunFolder) -> dict[str, bool]:
    """Return ``TaskFile.selection`` of the last launch of a run.

    Return an empty dict if the selection is None, if no valid task file exists, or if
    ``TaskFile.owner`` is set and is not running on this machine.
    """
    try:
        paths = sorted(run.jobs.glob(f"*/{TASK_FILE}"), key=lambda path: path.stat().st_mtime)
    except FileNotFoundError:  # the run folder was removed
        return {}
    task = read_state(TaskFile, paths[-1]) if paths else None
    if task is not None and task.owner is not None and not task.owner.is_alive():
        return {}
    return (task and task.selection) or {}
