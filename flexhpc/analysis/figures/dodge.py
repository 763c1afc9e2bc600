"""Horizontal offsets (dodging) of points with the same x, so that each is visible and clickable."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from flexhpc.analysis.grouping import group_by

_STEP, _GAP_SHARE = 5.0, 0.45
"""Maximum distance between neighbouring points at one position (pixels), and maximum fraction of
the gap between two positions that offsets may use."""
_SAME_POSITION = 12.0
"""Distance (pixels) below which two x values share one position."""


class Dodge:
    """Horizontal offsets that draw the points of all curves and seeds side by side at each x.

    Args:
        rows: one dict per point, with the keys ``id``, ``facet``, ``series`` and ``x``.
        series: names of all curves, from left to right.
        domain: both ends of the x axis.
        width: width of the axis (pixels).
        logarithmic: whether the axis is logarithmic.

    Attributes:
        step: distance between neighbouring points, in units of the axis (of its natural logarithm
            if it is logarithmic); 0 if no two points share a position.
        offsets: dict from the id of each point to its distance (steps) from the centre of the
            points of the same curve at the same x.
    """

    def __init__(
        self, rows: Sequence[Mapping[str, Any]], series: Sequence[str], domain: Sequence[float],
        width: float, *, logarithmic: bool,
    ) -> None:  # fmt: skip
        to_axis: Callable[[float], float] = math.log if logarithmic else float
        self._to_axis, self._series = to_axis, series
        self._from_axis: Callable[[float], float] = math.exp if logarithmic else float
        pixel = (to_axis(domain[1]) - to_axis(domain[0])) / width
        clusters: list[list[float]] = []
        for x in sorted({row["x"] for row in rows}):
            if clusters and to_axis(x) - to_axis(clusters[-1][0]) < _SAME_POSITION * pixel:
                clusters[-1].append(x)
            else:
                clusters.append([x])
        # The position of each x, in units of the axis, is the mean of its cluster.
        self._positions = {
            x: sum(map(to_axis, cluster)) / len(cluster) for cluster in clusters for x in cluster
        }
        curves = group_by(
            rows, lambda row: (row["facet"], self._positions[row["x"]], row["series"])
        )
        self.offsets = {
            row["id"]: rank - (len(curve) - 1) / 2
            for curve in curves.values()
            for rank, row in enumerate(curve)
        }
        self._per_curve = max(map(len, curves.values()))
        # Distance (steps) from the middle of the points at one position to the outermost point.
        self._half_width = (len(series) * self._per_curve - 1) / 2
        shared = Counter((row["facet"], self._positions[row["x"]]) for row in rows)
        gaps = [b - a for a, b in pairwise(sorted(set(self._positions.values())))]
        room = _GAP_SHARE * min(gaps, default=math.inf) / (self._per_curve * len(series))
        self.step = min(_STEP * pixel, room) if max(shared.values()) > 1 else 0.0

    def x(self, x: float, series: str, offset: float = 0.0) -> float:
        """Return the position at which to draw a point.

        Args:
            x: data value of the point.
            series: name of the curve.
            offset: distance (steps) from the centre of the points of this curve at ``x``.
        """
        middle = (self._series.index(series) - (len(self._series) - 1) / 2) * self._per_curve
        return self._shift(x, middle + offset)

    def left_end(self, x: float) -> float:
        """Return the position one step to the left of all points with the value ``x``."""
        return self._shift(x, -self._half_width - 1)

    def right_end(self, x: float) -> float:
        """Return the position of the rightmost point with the value ``x``."""
        return self._shift(x, self._half_width)

    def _shift(self, x: float, steps: float) -> float:
        """Return the position ``steps`` steps to the right of where the value ``x`` is drawn."""
        if not self.step:
            return x
        position = self._positions.get(x, self._to_axis(x)) + steps * self.step
        return self._from_axis(position)
