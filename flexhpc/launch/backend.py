"""What a sweep needs of whatever runs its workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol


class Backend(Protocol):
    """Workers on this machine, or tasks of a cluster.

    Attributes:
        shared: every worker takes whatever point is free, so any progress is everybody's.
        ours: they belong to this sweep and end with it; else they go on without it.
        patience: how often a point is handed out without any sign of progress.
        image: the image that they run in, None if in none.
    """

    shared: bool
    ours: bool
    patience: int
    image: str | None

    def poll(self) -> None:
        """Find out what runs; called before the points are looked at."""

    def covers(self, point_id: str) -> bool:
        """Return whether a worker is about to come to this point by itself."""
        ...

    def running(self) -> bool:
        """Return whether any worker runs or waits to."""
        ...

    def crashed(self) -> bool:
        """Return whether a worker that ended did not end well."""
        ...

    def start(self, points: Sequence[str]) -> bool:
        """Start workers for these points; False if it is better tried again later."""
        ...

    def waiting(self) -> Mapping[str, str]:
        """Return the points that wait in a queue, and what each waits for."""
        ...

    def log(self, point_id: str) -> str:
        """Return where the last worker for this point wrote its errors; empty if unknown."""
        ...

    def note(self) -> str:
        """Return what is worth saying about the workers now."""
        ...

    def summary(self) -> str:
        """Return in words what was started."""
        ...
