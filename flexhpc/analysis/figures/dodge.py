"""Horizontal offsets (dodging) of points with the same x, so that each is visible and clickable."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

_STEP, _GAP_SHARE = 5.0, 0.45
"""Maximum distance between neighbouring points at one position (pixels), and maximum fraction of
the gap between two positions that offsets may use."""
_SAME_POSITION = 12.0
"""Distance (pixels) below which two x values share one position."""


class Dodge:
    """Horizontal offsets with which curves and their seeds are drawn side by side at each x.

    Args:
        rows: points with ``id``, ``facet``, ``series`` and ``x``.
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
        self._logarithmic, self._series = logarithmic, list(series)
        pixel = (self._to_axis(domain[1]) - self._to_axis(domain[0])) / width
        self._positions = self._cluster_positions(
            {row["x"] for row in rows}, _SAME_POSITION * pixel
        )
        curves: dict[tuple[str, float, str], list[int]] = {}
        for row in rows:
            position = self._positions[row["x"]]
            curves.setdefault((row["facet"], position, row["series"]), []).append(row["id"])
        self.offsets = {
            point: rank - (len(ids) - 1) / 2
            for ids in curves.values()
            for rank, point in enumerate(ids)
        }
        self._per_curve = max(map(len, curves.values()))
        shared = Counter((row["facet"], self._positions[row["x"]]) for row in rows)
        gaps = [b - a for a, b in pairwise(sorted(set(self._positions.values())))]
        room = _GAP_SHARE * min(gaps, default=math.inf) / (self._per_curve * len(series))
        self.step = min(_STEP * pixel, room) if max(shared.values()) > 1 else 0.0

    def x(self, x: float, series: str, offset: float = 0.0) -> float:
        """Return the x at which to draw a point, ``offset`` steps from the centre of its curve."""
        middle = (self._series.index(series) - (len(self._series) - 1) / 2) * self._per_curve
        return self._shift(x, middle + offset)

    def left_end(self, x: float) -> float:
        """Return the x one step to the left of the leftmost point drawn for ``x``."""
        return self._shift(x, -self._half_width - 1)

    def right_end(self, x: float) -> float:
        """Return the x of the rightmost point drawn for ``x``."""
        return self._shift(x, self._half_width)

    @property
    def _half_width(self) -> float:
        """Distance (steps) from the middle of the points at one position to the outermost point."""
        return (len(self._series) * self._per_curve - 1) / 2

    def _shift(self, x: float, steps: float) -> float:
        """Return the x that is this number of steps to the right of the position of ``x``."""
        if not self.step:
            return x
        position = self._positions.get(x, self._to_axis(x)) + steps * self.step
        return math.exp(position) if self._logarithmic else position

    def _to_axis(self, x: float) -> float:
        """Convert x to the units of the axis: its logarithm if the axis is logarithmic."""
        return math.log(x) if self._logarithmic else x

    def _cluster_positions(self, values: Iterable[float], distance: float) -> dict[float, float]:
        """Group x values into clusters that are narrower than ``distance``.

        Returns:
            The position of each value, in units of the axis: the mean of its cluster.
        """
        clusters: list[list[float]] = []
        for value in sorted(values):
            if clusters and self._to_axis(value) - self._to_axis(clusters[-1][0]) < distance:
                clusters[-1].append(value)
            else:
                clusters.append([value])
        return {
            value: sum(map(self._to_axis, cluster)) / len(cluster)
            for cluster in clusters
            for value in cluster
        }
