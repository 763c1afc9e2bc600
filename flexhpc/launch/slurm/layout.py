"""How points become array jobs: pure arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """One array job.

    Attributes:
        points: ids, ``per_task`` of them for each task.
        tasks: number of tasks, with indices from 0.
        throttle: how many of them may run at the same time.
        after: number of the chunk that must have ended before this one starts, or None.
    """

    points: list[str]
    tasks: int
    throttle: int
    after: int | None = None


def lay_out(
    points: Sequence[str], *, per_task: int, max_array: int, throttle: int | None
) -> list[Chunk]:
    """Cut points into arrays.

    SLURM numbers the tasks of an array up to MaxArraySize - 1, so an array has at most
    MaxArraySize of them. A throttle holds over all arrays: they share it, and where there are more
    arrays than it allows tasks, arrays of one task at a time follow each other in as many lanes.

    Args:
        points: ids, in order.
        per_task: points of one task.
        max_array: MaxArraySize.
        throttle: tasks that may run at the same time, or None.
    """
    size = max_array * per_task
    cuts = [list(points[start : start + size]) for start in range(0, len(points), size)]
    chunks = []
    for number, cut in enumerate(cuts):
        tasks = -(-len(cut) // per_task)
        if throttle is None:
            share, after = tasks, None
        elif throttle >= len(cuts):
            share = throttle // len(cuts) + (number < throttle % len(cuts))
            after = None
        else:
            share, after = 1, number - throttle if number >= throttle else None
        chunks.append(Chunk(points=cut, tasks=tasks, throttle=min(share, tasks), after=after))
    return chunks
