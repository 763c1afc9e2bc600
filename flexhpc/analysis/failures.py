"""Points that failed for one reason: said once, however many they are."""

from __future__ import annotations

from collections.abc import Sequence

from flexhpc.store.status import PointStatus

_FEWEST = 3
"""Points that are shown as one line, if they failed alike before anything was measured."""
NO_RESULT = "its worker ended without a result"

Reasons = dict[str, list[PointStatus]]
"""Points by the message with which they failed."""


def by_reason(statuses: Sequence[PointStatus]) -> Reasons:
    """Return the points that failed, by why."""
    reasons: Reasons = {}
    for status in statuses:
        if status.state == "failed":
            reasons.setdefault(status.message or NO_RESULT, []).append(status)
    return reasons


def alike(statuses: Sequence[PointStatus]) -> tuple[Reasons, list[PointStatus]]:
    """Part the points that need no line of their own from the others.

    Returns:
        Those that failed alike with nothing measured, by why, and the others in their order.
    """
    empty = [status for status in statuses if not status.probes]
    together = {text: some for text, some in by_reason(empty).items() if len(some) >= _FEWEST}
    gone = {status.point.id for some in together.values() for status in some}
    return together, [status for status in statuses if status.point.id not in gone]


def reason_lines(reasons: Reasons) -> list[str]:
    """Return a line for each reason: ``24 points failed (width=4 ...): no such file``."""
    return [
        f"{len(some)} points ({_label(some[0])} ...) failed: {text}"
        for text, some in reasons.items()
    ]


def failure_lines(statuses: Sequence[PointStatus]) -> list[str]:
    """Return a line for each reason: ``failed: width=4 and 23 more: no such file``."""
    return [f"failed: {named(some)}: {text}" for text, some in by_reason(statuses).items()]


def named(some: Sequence[PointStatus]) -> str:
    """Return the name of the first of some points, and how many more there are."""
    return _label(some[0]) + (f" and {len(some) - 1} more" if len(some) > 1 else "")


def _label(status: PointStatus) -> str:
    return status.point.label or status.point.id
