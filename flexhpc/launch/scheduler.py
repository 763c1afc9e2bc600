"""Assign points to workers until the points are measured or make no more progress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flexhpc.launch.backend import Backend
from flexhpc.store.status import PointStatus

Mark = tuple[object, ...]
"""Value that changes if a point makes progress."""


class Scheduler:
    """Starts workers for the points that are neither running nor covered by an existing worker.

    A point is not assigned again after ``backend.patience`` assignments (one, if a worker crashed)
    without progress, because its workers exit before they claim it. If a worker dies after it has
    claimed the point, the claim counts the death instead.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._assigned: dict[str, tuple[Mark, int]] = {}

    def assign_points(self, todo: Sequence[PointStatus]) -> bool:
        """Start workers where needed; return False if there is nothing left to wait for.

        Args:
            todo: status of the points that are not finished.
        """
        free = [s for s in todo if s.state != "running" and not self.backend.covers(s.point.id)]
        round_mark = tuple(map(_mark, todo)) if self.backend.shared else ()
        marks = {s.point.id: (_mark(s), round_mark) for s in free}
        patience = 1 if self.backend.crashed() else self.backend.patience
        assignable = [point_id for point_id in marks if self._tries(point_id, marks) < patience]
        if assignable and self.backend.start(assignable):
            for point_id in assignable:
                self._assigned[point_id] = (marks[point_id], self._tries(point_id, marks) + 1)
        return bool(assignable) or len(free) < len(todo)

    def _tries(self, point_id: str, marks: Mapping[str, Mark]) -> int:
        """Return how often the point was assigned since its last progress."""
        mark, tries = self._assigned.get(point_id, ((), 0))
        return tries if mark == marks[point_id] else 0


def _mark(status: PointStatus) -> Mark:
    """Return a value that changes when a worker claims the point or stores a probe."""
    return (status.probes, status.state, status.token)
