"""Divide points into array jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


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
        arrays.append(
            PlannedArray(
                points=part, tasks=tasks, throttle=min(limit, tasks), predecessor=predecessor
            )
        )
    return arrays
