"""Assign points to workers until the points are measured or make no more progress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flexhpc.launch.backend import Backend
from flexhpc.store.status import PointStatus

ProgressMark = tuple[object, ...]
"""Value that changes if a point makes progress."""


class Scheduler:
    """Starts workers for the points that are neither running nor assigned to an existing worker.

    A point is not assigned again after ``backend.max_assignments`` assignments without progress
    (one, if a worker crashed), because its workers exit before they claim it. If a worker dies
    after it has claimed the point, the claim counts the death instead.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._assigned: dict[str, tuple[ProgressMark, int]] = {}

    def assign_points(self, todo: Sequence[PointStatus]) -> bool:
        """Start workers where needed; return False if there is nothing left to wait for."""
        free = self.without_worker(todo)
        round_mark = tuple(map(_mark, todo)) if self.backend.workers_share_points else ()
        marks = {s.point.id: (_mark(s), round_mark) for s in free}
        limit = 1 if self.backend.has_crashed_worker() else self.backend.max_assignments
        assignable = [point_id for point_id in marks if self._attempts(point_id, marks) < limit]
        if assignable and self.backend.start(assignable):
            for point_id in assignable:
                self._assigned[point_id] = (marks[point_id], self._attempts(point_id, marks) + 1)
        return bool(assignable) or len(free) < len(todo)

    def without_worker(self, todo: Sequence[PointStatus]) -> list[PointStatus]:
        """Return the points that no worker is measuring or will measure."""
        return [
            status
            for status in todo
            if status.state != "running" and not self.backend.has_worker_for(status.point.id)
        ]

    def _attempts(self, point_id: str, marks: Mapping[str, ProgressMark]) -> int:
        """Return how often the point was assigned since its last progress."""
        mark, attempts = self._assigned.get(point_id, ((), 0))
        return attempts if mark == marks[point_id] else 0


def _mark(status: PointStatus) -> ProgressMark:
    """Return a value that changes when a worker claims the point or stores a probe."""
    return (status.probes, status.state, status.token)
