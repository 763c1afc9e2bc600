"""Horizontal offsets (dodging) of points with the same x, so that each is visible and clickable."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

_STEP, _SHARE = 5.0, 0.45
"""Maximum distance between neighbouring points (pixels), and the maximum fraction of the gap to the
next x position that is used for offsets."""
_SAME = 12.0
"""Distance (pixels) below which two x values share one position."""


@dataclass(frozen=True, kw_only=True)
class Beside:
    """Offsets of points with the same x: curves side by side, and seeds within each curve.

    Attributes:
        step: distance between neighbouring points, in units of the axis (of its natural logarithm
            if it is logarithmic); 0 if no two points share a position.
        most: maximum number of points of one curve at one position.
        series: names of the curves, from left to right.
        turns: offset of each point, by id, from the middle of its curve (steps).
        places: position of each x value, in units of the axis: the mean of the values that lie
            close together.
        logarithmic: whether the axis is logarithmic.
    """

    step: float = 0.0
    most: int = 1
    series: Sequence[str] = ()
    turns: Mapping[int, float] = field(default_factory=dict)
    places: Mapping[float, float] = field(default_factory=dict)
    logarithmic: bool = False

    @classmethod
    def of(
        cls,
        rows: Sequence[Mapping[str, Any]],
        series: Sequence[str],
        domain: Sequence[float],
        width: float,
        *,
        logarithmic: bool,
    ) -> Beside:
        """Compute the offsets of the points of a figure.

        Args:
            rows: points with ``id``, ``facet``, ``series`` and ``x``.
            series: names of all curves.
            domain: both ends of the x axis; width: width of the axis (pixels).
            logarithmic: whether the axis is logarithmic.
        """
        unit = abs(_axis(domain[1], logarithmic) - _axis(domain[0], logarithmic)) / width
        where = dict(_places([row["x"] for row in rows], unit, logarithmic))
        groups: dict[tuple[str, float, str], list[int]] = {}
        crowds: dict[tuple[str, float], int] = {}
        for row in rows:
            place = row["facet"], where[row["x"]]
            groups.setdefault((*place, row["series"]), []).append(row["id"])
            crowds[place] = crowds.get(place, 0) + 1
        turns = {
            point: turn - (len(ids) - 1) / 2
            for ids in groups.values()
            for turn, point in enumerate(ids)
        }
        most = max((len(ids) for ids in groups.values()), default=1)
        if max(crowds.values(), default=1) == 1:
            return cls(turns=turns, logarithmic=logarithmic)
        gaps = [b - a for a, b in pairwise(sorted(set(where.values())))]
        room = _SHARE * min(gaps, default=math.inf) / (most * len(series))
        return cls(
            step=min(_STEP * unit, room), most=most, series=tuple(series), turns=turns,
            places=where, logarithmic=logarithmic,
        )  # fmt: skip

    def moved(self, x: float, series: str, turn: float = 0.0) -> float:
        """Return ``x`` with the offset of a curve, and of ``turn`` steps within the curve."""
        if not self.step:
            return x
        middle = (self.series.index(series) - (len(self.series) - 1) / 2) * self.most
        return self._from(x, middle + turn)

    def before(self, x: float) -> float:
        """Return the x one step to the left of the first point at a position."""
        return self._from(x, -self._half - 1) if self.step else x

    def after(self, x: float) -> float:
        """Return the x of the last point at a position."""
        return self._from(x, self._half) if self.step else x

    @property
    def _half(self) -> float:
        return (len(self.series) * self.most - 1) / 2

    def _from(self, x: float, steps: float) -> float:
        there = self.places.get(x, _axis(x, self.logarithmic)) + steps * self.step
        return math.exp(there) if self.logarithmic else there


def _axis(x: float, logarithmic: bool) -> float:
    return math.log(x) if logarithmic else x


def _places(values: Sequence[float], unit: float, logarithmic: bool) -> list[tuple[float, float]]:
    """Return pairs of a value and its position: the mean of the values close to it."""
    groups: list[list[float]] = []
    for value in sorted(set(values)):
        at = _axis(value, logarithmic)
        if groups and at - _axis(groups[-1][0], logarithmic) < _SAME * unit:
            groups[-1].append(value)
        else:
            groups.append([value])
    return [
        (value, sum(_axis(one, logarithmic) for one in group) / len(group))
        for group in groups
        for value in group
    ]
