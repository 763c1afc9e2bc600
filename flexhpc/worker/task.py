"""What a worker is told: one small file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from flexhpc.atomic import write_json
from flexhpc.errors import PointError
from flexhpc.state_file import read_as
from flexhpc.store.claim import process_birth, process_lives

WORKER_GPU = "FLEXHPC_GPU"
"""Environment variable with the GPUs of a worker, in the form of CUDA_VISIBLE_DEVICES."""
PROBES_AT_ONCE = "FLEXHPC_PROBES_AT_ONCE"
"""Environment variable with the probes of one point that a worker may train at the same time."""


@dataclass(frozen=True, kw_only=True)
class Owner:
    """The process for which workers work; they stop when it is gone."""

    pid: int
    birth: float

    @classmethod
    def of(cls, pid: int) -> Owner:
        """Return the owner with this process id."""
        return cls(pid=pid, birth=process_birth(pid) or 0.0)

    def lives(self) -> bool:
        """Return whether it still runs."""
        return process_lives(self.pid, self.birth)


@dataclass(frozen=True, kw_only=True)
class TaskFile:
    """Content of a task's file.

    Attributes:
        run: the run folder; spec: the frozen spec of this launch.
        launch: id of the launch.
        stop: workers stop when this file exists.
        python: Python, as "3.11", and flexhpc of whoever wrote this; a worker must have the same.
        owner: whom to watch, or None for workers that outlive their launcher.
        threads: threads of each process; probes_at_once: of one point, unless the environment says
            otherwise; retries: see the profile; checkpoint_every: seconds.
        beat: seconds between heartbeats.
        points: ids of the points of an array, ``per_task`` of them for each of its tasks; None
            for a worker that takes whatever point of the run is free.
        stop_before: seconds before the end of the allocation at which to stop.
    """

    run: str
    spec: str
    launch: str
    stop: str
    python: str
    flexhpc: str
    owner: Owner | None
    threads: int
    probes_at_once: int
    retries: int
    checkpoint_every: float
    beat: float = 1.0
    points: list[str] | None = None
    per_task: int = 1
    stop_before: float = 0.0

    def of_task(self, index: int) -> list[str] | None:
        """Return the ids of the points of one task of the array."""
        if self.points is None:
            return None
        return self.points[index * self.per_task : (index + 1) * self.per_task]

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> TaskFile:
        """Read it back.

        Raises:
            PointError: there is no such file, or it holds something else.
        """
        task = read_as(cls, path)
        if task is None:
            raise PointError(f"{path}: is damaged, or gone; the same command starts anew")
        return task
