"""Assign points to workers until the points are measured or make no more progress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flexhpc.launch.backend import Backend
from flexhpc.store.status import PointStatus

ProgressMark = tuple[object, ...]
"""Value that changes whenever a point makes progress."""


class Scheduler:
    """Starts workers for each point that no worker is measuring and that no running or queued
    worker is allowed to measure.

    If a worker exits before it claims its point, the point is assigned again. While no progress is
    made, a point is assigned at most ``backend.max_assignments`` times in a row, or only once if a
    local worker has crashed. If a worker dies after it has claimed its point, its death is counted
    in the claim, and the profile key ``retries`` limits the number of deaths.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._assigned: dict[str, tuple[ProgressMark, int]] = {}

    def assign_points(self, todo: Sequence[PointStatus]) -> bool:
        """Start workers for the points that :meth:`points_without_worker` returns.

        Points that have reached the maximum number of assignments without progress are omitted.

        Returns:
            True if a point has a worker or can still be assigned to one; False if there is nothing
            to wait for.
        """
        free = self.points_without_worker(todo)
        common_mark = tuple(map(_progress_mark, todo)) if self.backend.is_local else ()
        marks = {s.point.id: (_progress_mark(s), common_mark) for s in free}
        limit = 1 if self.backend.has_crashed_worker() else self.backend.max_assignments
        assignable = [key for key in marks if self._assignment_count(key, marks) < limit]
        if assignable and self.backend.start_workers(assignable):
            for point_id in assignable:
                count = self._assignment_count(point_id, marks) + 1
                self._assigned[point_id] = (marks[point_id], count)
        return bool(assignable) or len(free) < len(todo)

    def points_without_worker(self, todo: Sequence[PointStatus]) -> list[PointStatus]:
        """Return each point that no worker is measuring and that no running or queued worker is
        allowed to measure."""
        return [
            status
            for status in todo
            if status.state != "running" and not self.backend.has_worker_for(status.point.id)
        ]

    def _assignment_count(self, point_id: str, marks: Mapping[str, ProgressMark]) -> int:
        """Return how many times a point was assigned to a worker since its last progress."""
        mark, count = self._assigned.get(point_id, ((), 0))
        return count if mark == marks[point_id] else 0


def _progress_mark(status: PointStatus) -> ProgressMark:
    """Return a value that changes when a worker claims the point or stores a probe."""
    return (status.probes, status.state, status.token)
