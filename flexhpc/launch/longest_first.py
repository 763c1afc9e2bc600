"""What takes longest comes first, so that at the end nobody waits for one who is left with it.

Workers begin in the order of the spec. The last points, a few for each worker, are taken by how
long they are foretold to take (``python -m bench.forecast`` plays what that gains). Not all: the
time left is foretold best from points of all kinds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from flexhpc.launch.forecast import Forecast
from flexhpc.store.status import PointStatus
from flexhpc.worker.turns import Turns

_LAST = 8
"""Points for each worker that are the last ones."""


def longest_first(statuses: Sequence[PointStatus]) -> list[str]:
    """Return the points that nobody is at, by how long they are foretold to take.

    Nothing while there are many of them, or none tells how long points take.
    """
    free = [i for i, status in enumerate(statuses) if status.state in ("waiting", "stopped")]
    workers = max(1, sum(status.state == "running" for status in statuses))
    if not 0 < len(free) <= _LAST * workers or (forecast := Forecast.of(statuses)) is None:
        return []
    return [statuses[i].point.id for i in sorted(free, key=lambda i: -forecast.of_points[i])]


class LongestFirst:
    """Tells the workers of a launch, in its folder."""

    def __init__(self, launch: Path) -> None:
        self._launch, self._told = launch, Turns(points=[])

    def tell(self, statuses: Sequence[PointStatus]) -> None:
        """Say whose turn it is, if that is another than was said; it is but advice."""
        turns = Turns(points=longest_first(statuses))
        if turns != self._told:
            with contextlib.suppress(OSError):
                turns.write(self._launch)
                self._told = turns
