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
        self._logarithmic, self._series = logarithmic, list(series)
        pixel = (self._to_axis(domain[1]) - self._to_axis(domain[0])) / width
        self._positions = self._group_close_values(
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

    @property
    def _half_width(self) -> float:
        """Distance (steps) from the middle of the points at one position to the outermost point."""
        return (len(self._series) * self._per_curve - 1) / 2

    def _shift(self, x: float, steps: float) -> float:
        """Return the position ``steps`` steps to the right of where the value ``x`` is drawn."""
        if not self.step:
            return x
        position = self._positions.get(x, self._to_axis(x)) + steps * self.step
        return math.exp(position) if self._logarithmic else position

    def _to_axis(self, x: float) -> float:
        """Return ``x`` in units of the axis: log(x) if the axis is logarithmic, otherwise x."""
        return math.log(x) if self._logarithmic else x

    def _group_close_values(self, values: Iterable[float], max_width: float) -> dict[float, float]:
        """Group x values into clusters that are narrower than ``max_width`` (units of the axis).

        Returns:
            A dict from each value to its position: the mean of its cluster, in units of the axis.
        """
        clusters: list[list[float]] = []
        for value in sorted(values):
            if clusters and self._to_axis(value) - self._to_axis(clusters[-1][0]) < max_width:
                clusters[-1].append(value)
            else:
                clusters.append([value])
        return {
            value: sum(map(self._to_axis, cluster)) / len(cluster)
            for cluster in clusters
            for value in cluster
        }
