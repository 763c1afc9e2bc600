"""Assign points to workers until the points are measured or make no more progress."""

from __future__ import annotations

from collections.abc import Sequence

from flexhpc.launch.backend import Backend
from flexhpc.store.status import PointStatus


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
        # point id -> (progress mark, number of assignments at this mark) of the last assignment
        self._assigned: dict[str, tuple[object, int]] = {}

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
        counts = {}
        for point_id, mark in marks.items():
            last_mark, count = self._assigned.get(point_id, (None, 0))
            counts[point_id] = count if mark == last_mark else 0
        limit = 1 if self.backend.has_crashed_worker() else self.backend.max_assignments
        assignable = [point_id for point_id, count in counts.items() if count < limit]
        if assignable and self.backend.start_workers(assignable):
            for point_id in assignable:
                self._assigned[point_id] = (marks[point_id], counts[point_id] + 1)
        return bool(assignable) or len(free) < len(todo)

    def points_without_worker(self, todo: Sequence[PointStatus]) -> list[PointStatus]:
        """Return each point that no worker is measuring and that no running or queued worker is
        allowed to measure."""
        return [
            status
            for status in todo
            if status.state != "running" and not self.backend.has_worker_for(status.point.id)
        ]


def _progress_mark(status: PointStatus) -> object:
    """Return a value that changes when a worker claims the point or stores a probe."""
    return (status.probes, status.state, status.token)
