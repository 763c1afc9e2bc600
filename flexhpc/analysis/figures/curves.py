"""Medians of EMC over seeds, along the x axis of a figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from flexhpc.search import Estimate
from flexhpc.store.status import PointStatus

SIZES = ("width", "depth", "scale", "match_params", "dims", "seed")
"""Keys that change the size of a network or repeat it; points that differ in them share a curve."""


def medians_of(
    group: Sequence[PointStatus], place: Callable[[PointStatus], float]
) -> Iterator[tuple[float, float | None, int]]:
    """Yield x, the median EMC over the points at this x, and their parameters, by ascending x.

    The median is None, which interrupts the curve, where it depends on the unknown value of a
    censored EMC.
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
    """Return the smallest and the largest value that an EMC can have."""
    if estimate.censored == "left":
        return 0.0, float(estimate.smallest_fail or 1)
    return float(estimate.emc), math.inf if estimate.censored == "right" else float(estimate.emc)
