"""In which order the points of a sweep are begun."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from flexhpc.spec import Point
from flexhpc.spec.sections import Bayes


def in_order(points: Sequence[Point]) -> list[Point]:
    """Return points in the order in which they are to be begun: that of the sweep.

    Where finished points say where to look for the next ones, both ends come first and then the
    middle of each gap, so that most points have neighbours on both sides when they begin.
    """
    if any(isinstance(p.search, Bayes) and p.search.neighbours for p in points):
        return [points[i] for i in _spread(len(points))]
    return list(points)


def _spread(count: int) -> list[int]:
    """Return 0 to ``count`` - 1: both ends, then the middle of every gap, the widest first."""
    order = list(dict.fromkeys((0, count - 1))) if count else []
    gaps = deque([(0, count - 1)])
    while gaps:
        low, high = gaps.popleft()
        if high - low > 1:
            middle = (low + high) // 2
            order.append(middle)
            gaps += [(low, middle), (middle, high)]
    return order
