"""Failed points grouped by reason, so that each reason is reported once."""

from __future__ import annotations

from collections.abc import Sequence

from flexhpc.store.status import PointStatus

_FEWEST = 3
"""Minimum number of points without a probe that share one line if they failed for one reason."""
NO_RESULT = "its worker ended without a result"

Reasons = dict[str, list[PointStatus]]
"""Failed points by error message."""


def by_reason(statuses: Sequence[PointStatus]) -> Reasons:
    """Group the failed points by error message."""
    reasons: Reasons = {}
    for status in statuses:
        if status.state == "failed":
            reasons.setdefault(status.message or NO_RESULT, []).append(status)
    return reasons


def alike(statuses: Sequence[PointStatus]) -> tuple[Reasons, list[PointStatus]]:
    """Separate the points that share one line from those that need one each.

    Returns:
        The points that failed for a common reason before any probe finished, by reason, and the
        other points in their order.
    """
    empty = [status for status in statuses if not status.probes]
    together = {text: some for text, some in by_reason(empty).items() if len(some) >= _FEWEST}
    gone = {status.point.id for some in together.values() for status in some}
    return together, [status for status in statuses if status.point.id not in gone]


def reason_lines(reasons: Reasons) -> list[str]:
    """Return one line per reason: ``24 points (width=4 ...) failed: no such file``."""
    return [
        f"{len(some)} points ({_label(some[0])} ...) failed: {text}"
        for text, some in reasons.items()
    ]


def failure_lines(statuses: Sequence[PointStatus]) -> list[str]:
    """Return one line per reason: ``failed: width=4 and 23 more: no such file``."""
    return [f"failed: {named(some)}: {text}" for text, some in by_reason(statuses).items()]


def named(some: Sequence[PointStatus]) -> str:
    """Return the label of the first point and the number of further ones."""
    return _label(some[0]) + (f" and {len(some) - 1} more" if len(some) > 1 else "")


def _label(status: PointStatus) -> str:
    return status.point.label or status.point.id
