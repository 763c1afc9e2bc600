"""Medians of EMC over seeds, along what was swept."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from flexhpc.search import Estimate
from flexhpc.store.status import PointStatus

SIZES = ("width", "depth", "scale", "match_params", "dims", "seed")
"""Keys that make a network larger, or repeat it: they run along a curve."""


def medians_of(
    group: Sequence[PointStatus], place: Callable[[PointStatus], float]
) -> Iterator[tuple[float, float | None, int]]:
    """Yield ascending places, the median EMC over the points at each, and their parameters.

    None, so that a curve is broken there, where the median depends on what lies beyond the bound of
    a censored EMC.
    """
    by_place: dict[float, list[PointStatus]] = {}
    for status in group:
        by_place.setdefault(place(status), []).append(status)
    for at in sorted(by_place):
        some = by_place[at]
        reaches = [_reach(status.estimate) for status in some if status.estimate]
        low, high = np.median(reaches, axis=0)
        size = some[0].record.header.params if some[0].record else 0
        yield at, float(low) if low == high else None, size


def _reach(estimate: Estimate) -> tuple[float, float]:
    """Return the least and the most that a point's EMC can be."""
    if estimate.censored == "left":
        return 0.0, float(estimate.smallest_fail or 1)
    return float(estimate.emc), math.inf if estimate.censored == "right" else float(estimate.emc)
