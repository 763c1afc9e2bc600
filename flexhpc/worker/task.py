"""Task file: the input of a worker."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from flexhpc.atomic import write_json
from flexhpc.errors import PointError
from flexhpc.state_file import read_state
from flexhpc.store.claim import process_birth, process_is_alive

WORKER_GPU = "FLEXHPC_GPU"
"""Environment variable with the GPUs of a worker, in the format of CUDA_VISIBLE_DEVICES."""
TASK_FILE = "task.json"
PROBES_AT_ONCE = "FLEXHPC_PROBES_AT_ONCE"
"""Environment variable with the number of probes of a point that a worker trains in parallel."""


@dataclass(frozen=True, kw_only=True)
class ProcessIdentity:
    """Identity of a process. Workers stop when the owner in their task file ends.

    Attributes:
        pid: process id.
        birth: start time (seconds since the epoch), 0 if the process was already dead.
    """

    pid: int
    birth: float

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity:
        """Look up the start time of a process."""
        return cls(pid=pid, birth=process_birth(pid) or 0.0)

    def alive(self) -> bool:
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
        python: Python version of the submitting process, as ``3.11``; workers must have the same.
        flexhpc: flexhpc version of the submitting process; workers must have the same.
        owner: process that started the workers, which stop when it ends; None if they outlive it.
        threads: number of threads per process.
        probes_at_once: number of probes of one point trained in parallel, unless overridden by
            ``FLEXHPC_PROBES_AT_ONCE``.
        retries: number of retries of a point after its worker died.
        checkpoint_every: time between checkpoints (seconds).
        heartbeat_every: time between heartbeats (seconds).
        points: ids of the points of an array, ``per_task`` consecutive ids for each task; None for
            a worker that claims any free point of the run.
        per_task: number of points per task of the array.
        selection: ids of the points to measure, each with whether it is measured to the tolerance
            of the spec; None for all points, as the spec requests.
        stop_before: time before the end of the allocation at which workers stop (seconds).
    """

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
        """Return the ids of the points of one array task; None outside of an array."""
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
            PointError: the file does not exist or is invalid.
        """
        task = read_state(cls, path)
        if task is None:
            raise PointError(
                f"{path}: is corrupt or missing; run the same `flexhpc sweep` command again"
            )
        return task
