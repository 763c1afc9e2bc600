"""Curves of EMC over size: which points are one, and how it is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from flexhpc.analysis.figures.marks import COLOURS, MARKERS, arrow, verbatim
from flexhpc.analysis.text import plain_text
from flexhpc.search import Estimate
from flexhpc.store.status import PointStatus

_LEAST = 0.7
"""What stands for an EMC of 0 on a logarithmic axis (samples)."""
_SIZES = ("width", "depth", "scale", "match_params", "dims", "seed")
"""Keys that make a network larger, or repeat it: they run along a curve."""


def series_of(statuses: Sequence[PointStatus]) -> dict[str, list[PointStatus]]:
    """Group points into curves: by all swept keys but those that set the size, and the seed."""
    groups: dict[str, list[PointStatus]] = {}
    for status in statuses:
        swept = status.point.swept
        rest = {k: _without_size(v) for k, v in swept.items() if k.split(".")[-1] not in _SIZES}
        name = ", ".join(
            f"{key.split('.')[-1]}: {plain_text(value)}"
            for key, value in rest.items()
            if value is not None
        )
        groups.setdefault(name, []).append(status)
    return groups


def with_size(statuses: Sequence[PointStatus]) -> list[PointStatus] | None:
    """Return the measured points that have parameters; None if not even those begun have any."""
    sizes = [status.record.header.params for status in statuses if status.record]
    if sizes and not any(sizes):
        return None
    return [s for s in statuses if s.estimate and s.record and s.record.header.params]


def _without_size(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_size(v) for k, v in value.items() if k not in _SIZES}
    return value


def draw_series(
    axes: Axes, group: Sequence[PointStatus], number: int, name: str, *, per_parameter: bool = False
) -> None:
    """One curve: filled markers with intervals; open ones with an arrow where censored."""
    colour, marker = COLOURS[number % 7], MARKERS[number % 7]
    for status in group:
        estimate, record = status.estimate, status.record
        if estimate is None or record is None:
            continue
        x = record.header.params
        size = x if per_parameter else 1
        if estimate.censored == "none" and estimate.emc_hi is not None:
            low, high = max(estimate.emc_lo, _LEAST), estimate.emc_hi
            axes.plot([x, x], [low / size, high / size], color=colour, linewidth=1, alpha=0.7)
            axes.plot([x], [max(estimate.emc, _LEAST) / size], marker, color=colour, markersize=5)
        else:
            up = estimate.censored == "right"
            y = (estimate.emc if up else estimate.smallest_fail or _LEAST) / size
            axes.plot([x], [y], marker, color=colour, markersize=6, markerfacecolor="white")
            arrow(axes, (x, y), (0, 1 if up else -1), colour)
    sizes, medians = _medians(group)
    ys = [
        median / size if per_parameter else median
        for size, median in zip(sizes, medians, strict=True)
    ]
    axes.plot(
        sizes, ys, color=colour, linewidth=1.2, marker=marker, markersize=0.1,
        label=verbatim(name or "EMC"),
    )  # fmt: skip


def _medians(group: Sequence[PointStatus]) -> tuple[list[int], list[float]]:
    """Return ascending sizes and the median EMC over the seeds of each.

    NaN, so that a curve is broken there, where the median depends on what lies beyond the bound of
    a censored EMC.
    """
    by_size: dict[int, list[tuple[float, float]]] = {}
    for status in group:
        if status.record and status.estimate:
            by_size.setdefault(status.record.header.params, []).append(_reach(status.estimate))
    sizes = sorted(by_size)
    ends = [np.median(by_size[size], axis=0) for size in sizes]
    return sizes, [max(float(low), _LEAST) if low == high else math.nan for low, high in ends]


def _reach(estimate: Estimate) -> tuple[float, float]:
    """Return the least and the most that a point's EMC can be."""
    if estimate.censored == "left":
        return 0.0, float(estimate.smallest_fail or 1)
    return float(estimate.emc), math.inf if estimate.censored == "right" else float(estimate.emc)
