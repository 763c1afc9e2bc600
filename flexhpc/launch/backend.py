"""Interface of the backends that run the workers of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol


class Backend(Protocol):
    """Starts and monitors the workers of a sweep, on this machine or on a cluster.

    Attributes:
        shared: whether every worker may claim any free point; a worker that makes progress on
            one point may then still measure the others.
        ours: whether an interrupted sweep stops the workers; otherwise they continue.
        patience: maximum number of times that a point is assigned without making progress.
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
        """Return whether any worker has failed."""
        ...

    def start(self, points: Sequence[str]) -> bool:
        """Start workers for these points; return False if the caller should retry later."""
        ...

    def waiting(self) -> Mapping[str, str]:
        """Return the ids of the queued points, mapped to the reason why each point waits."""
        ...

    def log(self, point_id: str) -> str:
        """Return the path of this point's log, or of the folder of logs; empty if unknown."""
        ...

    def note(self) -> str:
        """Return a warning about the state of the workers; an empty string if there is none."""
        ...

    def summary(self) -> str:
        """Return a one-line description of the workers that were started."""
        ...
