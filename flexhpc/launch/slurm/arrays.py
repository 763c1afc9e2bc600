"""Array jobs: division of the points, and records with job names and job ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated

from pydantic import Field

from flexhpc.atomic import write_json
from flexhpc.errors import PointError
from flexhpc.launch.slurm.commands import Queue, QueuedTask
from flexhpc.state_file import read_state
from flexhpc.store import RunFolder
from flexhpc.worker.task import TASK_FILE, TaskFile

_FILE = "array.json"


@dataclass(frozen=True, kw_only=True)
class PlannedArray:
    """The points of one array job.

    Attributes:
        points: point ids, in the order of the tasks.
        tasks: number of tasks; their indices start at 0.
        throttle: maximum number of tasks running concurrently.
        predecessor: index of the array whose job must end before the job of this array starts; None
            if the job need not wait.
    """

    points: list[str]
    tasks: int
    throttle: int
    predecessor: int | None = None


def divide_into_arrays(
    points: Sequence[str], *, per_task: int, max_array: int, throttle: int | None
) -> list[PlannedArray]:
    """Divide points into array jobs.

    SLURM allows task indices up to MaxArraySize - 1, so an array has at most MaxArraySize tasks.
    The throttle applies to all arrays together and is divided among them. If there are more arrays
    than ``throttle``, each array runs one task at a time, and array ``i`` starts when array
    ``i - throttle`` has ended.

    Args:
        points: point ids.
        per_task: number of points per task.
        max_array: maximum number of tasks in one array; at most MaxArraySize.
        throttle: maximum number of tasks that run concurrently; None for no limit.
    """
    size = max_array * per_task
    parts = [list(points[start : start + size]) for start in range(0, len(points), size)]
    arrays = []
    for number, part in enumerate(parts):
        tasks = -(-len(part) // per_task)
        if throttle is None:
            limit, predecessor = tasks, None
        elif throttle >= len(parts):
            limit = throttle // len(parts) + (number < throttle % len(parts))
            predecessor = None
        else:
            limit, predecessor = 1, number - throttle if number >= throttle else None
        limit = min(limit, tasks)
        arrays.append(
            PlannedArray(points=part, tasks=tasks, throttle=limit, predecessor=predecessor)
        )
    return arrays


@dataclass(frozen=True, kw_only=True)
class ArrayRecord:
    """Record of an array job, stored as ``array.json`` in the folder of the array.

    Attributes:
        folder: folder of the array, ``jobs/LAUNCH/array-NNN`` in the run folder.
        name: job name; unique to this submission, so that the job can be found in the queue.
        tasks: number of tasks.
        throttle: maximum number of tasks running concurrently.
        job: job id; None until SLURM has confirmed the submission.
        slurm_conf: path of the cluster's slurm.conf; None for the system default.
    """

    folder: Path
    name: str
    tasks: Annotated[int, Field(ge=0, le=1_000_000)]
    throttle: int
    job: str | None
    slurm_conf: str | None

    def write(self) -> None:
        """Write the record to its folder."""
        values = asdict(self)
        del values["folder"]
        write_json(self.folder / _FILE, values)

    def store_job_id(self, job: str) -> ArrayRecord:
        """Add the job id of an accepted submission and write the record; return the new record."""
        record = replace(self, job=job)
        record.write()
        return record

    def with_job_id_from(self, queue: Queue) -> ArrayRecord:
        """Return the record with its job id; if necessary, look up the job id by the job name.

        A job id found in the queue is stored. If the job name is not in the queue, the job id stays
        None.
        """
        if self.job is not None or self.name not in queue.jobs:
            return self
        return self.store_job_id(queue.jobs[self.name])

    def points_by_task(self) -> list[list[str]]:
        """Return a list of point ids per task; all are empty if the task file cannot be read."""
        return _points_by_task(self.folder / TASK_FILE, self.tasks)


def array_records(run: RunFolder) -> list[ArrayRecord]:
    """Return the records of all arrays of a run, ordered by launch from oldest to newest."""
    paths = sorted(run.jobs.glob(f"*/array-*/{_FILE}"))
    records = [read_state(ArrayRecord, path, folder=path.parent) for path in paths]
    return [record for record in records if record is not None]


def records_by_cluster(records: Iterable[ArrayRecord]) -> dict[str | None, list[ArrayRecord]]:
    """Return a dict from the slurm.conf path of a cluster (or None) to the cluster's records."""
    groups: dict[str | None, list[ArrayRecord]] = {}
    for record in records:
        groups.setdefault(record.slurm_conf, []).append(record)
    return groups


def tasks_in_queue(record: ArrayRecord, queue: Queue) -> Iterator[tuple[int, QueuedTask]]:
    """Yield (index, task) for each queued or running task of an array."""
    for index in range(record.tasks):
        if (record.name, index) in queue.tasks:
            yield index, queue.tasks[record.name, index]


def reasons_for_waiting(records: Iterable[ArrayRecord], queue: Queue) -> dict[str, str]:
    """Return a dict from the id of each point in the queue to the reason why it waits."""
    reasons: dict[str, str] = {}
    for record in records:
        tasks = list(tasks_in_queue(record, queue))
        points = record.points_by_task() if tasks else []
        for index, task in tasks:
            reason = "its task has started" if task.state == "RUNNING" else task.reason
            reasons |= dict.fromkeys(points[index], reason)
    return reasons


@lru_cache(maxsize=4096)
def _points_by_task(path: Path, task_count: int) -> list[list[str]]:
    try:
        task_file = TaskFile.read(path)
    except PointError:
        return [[] for _ in range(task_count)]
    return [task_file.points_of_task(index) or [] for index in range(task_count)]
