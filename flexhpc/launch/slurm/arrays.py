"""The record of an array job: which points it has, under which name and id it was submitted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated

from pydantic import Field

from flexhpc.atomic import write_json
from flexhpc.errors import PointError
from flexhpc.launch.slurm.commands import Queue, Queued
from flexhpc.state_file import read_as
from flexhpc.store import RunFolder
from flexhpc.worker.task import TaskFile

_FILE, TASK_FILE = "array.json", "task.json"


@dataclass(frozen=True, kw_only=True)
class ArrayRecord:
    """An array job, as its folder remembers it.

    Attributes:
        folder: jobs/LAUNCH/array-NNN.
        name: job name; no other submission ever has it, so the queue tells what became of it.
        tasks: number of tasks; throttle: how many may run at the same time.
        job: SLURM's id; None until the submission is known to be accepted.
        slurm_conf: of its cluster, None for the system's.
    """

    folder: Path
    name: str
    tasks: Annotated[int, Field(ge=0, le=1_000_000)]
    throttle: int
    job: str | None
    slurm_conf: str | None

    def write(self) -> None:
        """Write it into its folder."""
        plain = {**asdict(self), "folder": None}
        del plain["folder"]
        write_json(self.folder / _FILE, plain)

    def accepted(self, job: str) -> ArrayRecord:
        """Return it with the id that SLURM gave, written down."""
        known = replace(self, job=job)
        known.write()
        return known

    def adopted(self, queue: Queue) -> ArrayRecord:
        """Return it with the id that the queue knows, if it was not known to be accepted."""
        if self.job is not None or self.name not in queue.names:
            return self
        return self.accepted(queue.names[self.name])

    def points(self) -> list[list[str]]:
        """Return the ids of the points of every task."""
        return _points_of(self.folder / TASK_FILE, self.tasks)

    def log(self, index: int) -> Path:
        """Return where task ``index`` writes its errors, in its process 0."""
        return self.folder / f"{self.job}_{index}_0_log.err"


def array_records(run: RunFolder) -> list[ArrayRecord]:
    """Return every array of a run, the newest launch last."""
    records = []
    for path in sorted(run.jobs.glob(f"*/array-*/{_FILE}")):
        record = read_as(ArrayRecord, path, folder=path.parent)
        if record is not None:
            records.append(record)
    return records


def in_queue(record: ArrayRecord, queue: Queue) -> Iterator[tuple[int, Queued]]:
    """Yield index and state of the tasks of an array that are queued or run."""
    for index in range(record.tasks):
        task = queue.tasks.get((record.job, index)) if record.job is not None else None
        if task is not None and task.name == record.name:
            yield index, task


def waiting_points(records: Iterable[ArrayRecord], queue: Queue) -> dict[str, str]:
    """Return the points that tasks in the queue are about to come to, and what each waits for."""
    waiting: dict[str, str] = {}
    for record in records:
        queued = list(in_queue(record, queue))
        points = record.points() if queued else []
        for index, task in queued:
            reason = "its task has begun" if task.state == "RUNNING" else task.reason
            waiting |= dict.fromkeys(points[index], reason)
    return waiting


@lru_cache(maxsize=4096)
def _points_of(path: Path, tasks: int) -> list[list[str]]:
    try:
        task = TaskFile.read(path)
    except PointError:
        return [[] for _ in range(tasks)]
    return [task.of_task(index) or [] for index in range(tasks)]
