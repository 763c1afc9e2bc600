"""Best values of tuned keys as text."""

from __future__ import annotations

from collections.abc import Sequence

from flexhpc.store.status import PointStatus

AT_EDGE = (
    "the best value of a tuned key is the lowest or the highest one that was tried: a wider range "
    "may give a larger EMC"
)


def tuned(statuses: Sequence[PointStatus]) -> bool:
    """Return whether any point tunes a key."""
    return any(len(status.point.arms) > 1 for status in statuses)


def best_text(status: PointStatus) -> str:
    """Format the best values and the probability that they are the best: ``lr=0.031, 88%``.

    A value at an end of its range is marked: ``lr=0.3 (edge), 62%``. Empty if no key is tuned and
    before the first estimate.
    """
    estimate = status.estimate
    if estimate is None or estimate.best_chance is None:
        return ""
    arm = status.point.arms[estimate.arm]
    values = (
        f"{key.split('.')[-1]}={value:g}{' (edge)' if key in arm.edges else ''}"
        for key, value in arm.values.items()
    )
    return f"{' '.join(values)}, {estimate.best_chance:.0%}"


def at_edge(status: PointStatus) -> bool:
    """Return whether the best value of any tuned key lies at an end of its range."""
    estimate = status.estimate
    if estimate is None or estimate.best_chance is None:
        return False
    return bool(status.point.arms[estimate.arm].edges)
