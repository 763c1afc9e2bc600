"""Interface of the backends that run the workers of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol


class Backend(Protocol):
    """Workers on this machine, or tasks of a cluster.

    Attributes:
        shared: whether each worker takes any free point, so that progress on one point is progress
            on all points.
        ours: whether the workers belong to this sweep and end with it; otherwise they continue
            when the sweep process ends.
        patience: number of times that a point is assigned without progress before it fails.
        image: container image of the workers; None without a container.
    """

    shared: bool
    ours: bool
    patience: int
    image: str | None

    def poll(self) -> None:
        """Update the state of the workers; called before the status of the points is read."""

    def covers(self, point_id: str) -> bool:
        """Return whether an existing worker will measure this point."""
        ...

    def has_workers(self) -> bool:
        """Return whether any worker is running or queued."""
        ...

    def crashed(self) -> bool:
        """Return whether any worker has ended with a failure."""
        ...

    def start(self, points: Sequence[str]) -> bool:
        """Start workers for these points; return False if the caller should retry later."""
        ...

    def waiting(self) -> Mapping[str, str]:
        """Return the queued points as a mapping from point id to the reason for waiting."""
        ...

    def log(self, point_id: str) -> str:
        """Return the path of the error log of this point's last worker; empty if unknown."""
        ...

    def note(self) -> str:
        """Return a message on the current state of the workers; empty if there is none."""
        ...

    def summary(self) -> str:
        """Return a one-line description of the workers that were started."""
        ...
