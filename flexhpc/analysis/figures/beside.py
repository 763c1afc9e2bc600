"""Points of one place side by side, so that each can be seen and asked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

_STEP, _SHARE = 5.0, 0.45
"""Pixels from one point to the next, and how much of the way to the next place they may take."""
_SAME = 12.0
"""Pixels within which two places are one."""


@dataclass(frozen=True, kw_only=True)
class Beside:
    """How far points stand from their places: curves side by side, and their seeds within these.

    Attributes:
        step: from a point to its neighbour, in units of the axis (of its logarithm, if it is
            logarithmic); 0 where no two points have one place.
        most: points that a curve has at one place, at most.
        series: names of the curves, from left to right.
        turns: of each point's id, how many steps it is from the middle of its curve.
        places: of each value, where on the axis those that nearly agree with it have their middle.
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
        """Return how the points of a figure stand.

        Args:
            rows: with ``id``, ``facet``, ``series`` and ``x``, of an axis from ``domain[0]`` to
                ``domain[1]`` that is ``width`` pixels wide; series: names of all curves.
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
        """Return where something of a curve stands whose place is ``x``."""
        if not self.step:
            return x
        middle = (self.series.index(series) - (len(self.series) - 1) / 2) * self.most
        return self._from(x, middle + turn)

    def before(self, x: float) -> float:
        """Return what lies before the first point of a place, by a step."""
        return self._from(x, -self._half - 1) if self.step else x

    def after(self, x: float) -> float:
        """Return where the last point of a place stands."""
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
    """Return each value with its place on the axis: the mean of those that are near it."""
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
