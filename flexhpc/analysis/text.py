"""Formatting of estimates, brackets, numbers and durations; shortening of swept values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from flexhpc.analysis.grouping import swept_keys
from flexhpc.config import Point
from flexhpc.custom.code import IN_PROCESS
from flexhpc.search import Bracket, EmcInterval, Estimate
from flexhpc.search.history import Censored
from flexhpc.store.status import PointStatus

BOUNDS: dict[Censored, str] = {"none": "", "right": ">=", "left": "<"}
"""Value of ``censored`` -> prefix that marks the EMC as a bound."""


def emc_text(estimate: Estimate | None) -> str:
    """Format an EMC estimate: ``412 [350, 480]``; if it is censored: ``>= 1797``, ``< 1``."""
    if estimate is not None and estimate.censored == "left":
        return f"< {estimate.smallest_fail}"
    return interval_text(estimate)


def estimate_text(status: PointStatus) -> str:
    """Format the EMC of a point; a preliminary estimate gets a prefix: ``~ 412 [350, 480]``."""
    text = emc_text(status.estimate)
    return text if status.state == "done" or not text else f"~ {text}"


def interval_text(estimate: Estimate | EmcInterval | None) -> str:
    """Format an EMC and its interval: ``412 [350, 480]``.

    If it is right-censored: ``>= 1797``; if it is left-censored: ``[0, 12]``.
    """
    if estimate is None:
        return ""
    if estimate.censored == "right":
        return f">= {estimate.emc}"
    interval = f"[{estimate.emc_lo}, {estimate.emc_hi}]"
    return interval if estimate.censored == "left" else f"{estimate.emc} {interval}"


def doubling_text(estimate: Estimate | None, *, with_interval: bool = False) -> str:
    """Format the factor by which the EMC would increase if the budget were doubled.

    An example of the text is ``x1.34 [1.21, 1.50]``.

    Args:
        estimate: EMC estimate; the text is empty if its ``doubling`` is unknown.
        with_interval: whether to add the interval.
    """
    if estimate is None or estimate.doubling is None:
        return ""
    low, middle, high = estimate.doubling
    return f"x{middle:.2f} [{low:.2f}, {high:.2f}]" if with_interval else f"x{middle:.2f}"


def emc_or_bound(estimate: Estimate) -> int:
    """Return the EMC in samples, or its bound if it is censored."""
    return (estimate.smallest_fail or 1) if estimate.censored == "left" else estimate.emc


def ratio_text(estimate: Estimate | None, size: int) -> str:
    """Format EMC per parameter or per bit: ``0.221``; if the EMC is a bound: ``>= 2.946``.

    Args:
        estimate: EMC (samples); None before the first probe.
        size: number of parameters or of bits; 0 if unknown.
    """
    if estimate is None or not size:
        return ""
    bound, ratio = BOUNDS[estimate.censored], emc_or_bound(estimate) / size
    return f"{bound} {ratio:.3f}".lstrip() if ratio >= 0.01 else f"{bound} {ratio:.2g}".lstrip()


def number_text(value: object) -> str:
    """Format a number or boolean for a table cell: ``1,234``, ``0.0123``, ``true``."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def bracket_text(bracket: Bracket) -> str:
    """Format a bracket: ``256 - 512``, with a dot for an end that is not known.

    If the smallest n that failed is at most the largest n that fitted: ``300 ~ 420``.
    """
    low, high = bracket.largest_fit, bracket.smallest_fail
    if low is None and high is None:
        return ""
    if low is not None and high is not None and low >= high:
        return f"{high} ~ {low}"
    return f"{low or '.'} - {high or '.'}"


def duration_text(seconds: float) -> str:
    """Format a duration: ``42 s``, ``3 min``, ``5.2 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def point_title(point: Point) -> str:
    """Return the label of a point; without swept values, its family, width, data and labels."""
    if point.label:
        return point.label
    model, data = point.model.model_dump(), point.data.model_dump()
    width = f"width {model['width']}" if model.get("width") else ""
    labels = f"{data['labels']} labels" if data.get("labels") else ""
    names = model.get("family"), data.get("source")
    family, source = (str(name or "").removeprefix(f"{IN_PROCESS}:") for name in names)
    return ", ".join(filter(None, (family, width, source, labels)))


def without_shared_entries(statuses: Sequence[PointStatus]) -> list[PointStatus]:
    """Remove from swept mappings the entries that are equal at all points.

    Of ``{optimizer: sgd, steps: 2000, weight_decay: 0.01}`` and ``{optimizer: sgd, steps: 2000}``,
    the first becomes ``{weight_decay: 0.01}``. A mapping that would become empty keeps its first
    entry, which selects the variant: the second becomes ``{optimizer: sgd}``.
    """
    common: dict[str, dict[str, Any]] = {}
    for key in swept_keys(statuses):
        values = [s.point.swept[key] for s in statuses if key in s.point.swept]
        if all(isinstance(value, dict) for value in values):
            common[key] = {
                k: v for k, v in values[0].items() if all(k in x and x[k] == v for x in values)
            }
    if not any(common.values()):
        return list(statuses)
    shortened = []
    for status in statuses:
        swept = dict(status.point.swept)
        for key in common.keys() & swept.keys():
            rest = {k: v for k, v in swept[key].items() if k not in common[key]}
            swept[key] = rest or dict(list(swept[key].items())[:1])
        shortened.append(replace(status, point=replace(status.point, swept=swept)))
    return shortened
