"""Interface of the backends that run the workers of a sweep."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar


class Backend(ABC):
    """Starts and monitors the workers of a sweep, on this machine or on a cluster.

    Attributes:
        is_local: whether the workers run on this machine. Local workers stop when the sweep is
            interrupted. Each can claim any free point, so progress on one point resets the number
            of assignments of all points.
        max_assignments: maximum number of times in a row that a point is assigned to a worker while
            no progress is made.
        image: container image of the workers; None without a container.
        warning: warning about the state of the workers; empty without a warning.
        queued: dict from the id of each queued point to the reason why it waits.
    """

    is_local: ClassVar[bool]
    max_assignments: ClassVar[int]
    image: str | None
    warning: str = ""
    queued: Mapping[str, str] = {}

    @abstractmethod
    def poll(self) -> None:
        """Update the state of the workers; called before the status of the points is read."""

    @abstractmethod
    def has_workers(self) -> bool:
        """Return whether any worker is running or queued."""

    @abstractmethod
    def has_worker_for(self, point_id: str) -> bool:
        """Return whether a running or queued worker is allowed to measure this point."""

    def has_crashed_worker(self) -> bool:
        """Return whether a worker has crashed; if so, new workers would probably crash too."""
        return False

    @abstractmethod
    def start_workers(self, points: Sequence[str]) -> bool:
        """Start workers for these points.

        Returns:
            True if all points are assigned; False if the caller should retry later.
        """

    @abstractmethod
    def log_path(self, point_id: str) -> str:
        """Return the path of this point's log or of the folder of all logs; '' if unknown."""

    @abstractmethod
    def summary(self) -> str:
        """Return a one-line description of the workers that were started."""
