"""Short text for estimates, brackets, numbers and durations, used by all tables and figures."""

from __future__ import annotations

from flexhpc.search import Bracket, EpsEstimate, Estimate
from flexhpc.search.history import Censored
from flexhpc.store.status import PointStatus

BOUNDS: dict[Censored, str] = {"none": "", "right": ">=", "left": "<"}
"""Prefix of the bound of a censored EMC."""


def emc_text(estimate: Estimate | None) -> str:
    """Format an EMC estimate: ``412 [350, 480]``, ``>= 1797``, ``< 1``."""
    if estimate is None:
        return ""
    if estimate.censored == "right":
        return f">= {estimate.emc}"
    if estimate.censored == "left":
        return f"< {estimate.smallest_fail}"
    return f"{estimate.emc} [{estimate.emc_lo}, {estimate.emc_hi}]"


def estimate_text(status: PointStatus) -> str:
    """Format the EMC of a point; preliminary estimates as ``~ 412 [350, 480]``."""
    text = emc_text(status.estimate)
    return text if status.state == "done" or not text else f"~ {text}"


def eps_text(estimate: EpsEstimate | None) -> str:
    """Format an EMC at a training error: ``412 [350, 480]``, ``>= 1797``, ``[0, 12]``."""
    if estimate is None:
        return ""
    if estimate.censored == "right":
        return f">= {estimate.emc}"
    interval = f"[{estimate.emc_lo}, {estimate.emc_hi}]"
    return interval if estimate.censored == "left" else f"{estimate.emc} {interval}"


def ratio_text(estimate: Estimate | None, size: int) -> str:
    """Format EMC per parameter or per bit: ``0.221``, or as a bound: ``>= 2.946``.

    Args:
        estimate: EMC (samples); None before the first probe.
        size: number of parameters or of bits; 0 if unknown.
    """
    if estimate is None or not size:
        return ""
    bound = BOUNDS[estimate.censored]
    samples = estimate.smallest_fail if estimate.censored == "left" else estimate.emc
    ratio = (samples or 0) / size
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
    """Format a bracket: ``256 - 512``, with a dot for an open end.

    If the smallest n that failed is below the largest n that fitted: ``300 ~ 420``.
    """
    low, high = bracket.largest_fit, bracket.smallest_fail
    if low is None and high is None:
        return ""
    if low is not None and high is not None and low >= high:
        return f"{high} ~ {low}"
    return f"{low or '.'} - {high or '.'}"


def span(seconds: float) -> str:
    """Format a duration: ``42 s``, ``3 min``, ``5.2 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
