"""EMC at a training error that nobody asked for when the probes ran: from their stored counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from flexhpc.config.sections.search import eps_name
from flexhpc.search import estimate_at
from flexhpc.store.status import PointStatus


def with_errors(statuses: Sequence[PointStatus], eps: Sequence[float]) -> list[PointStatus]:
    """Return the points with an estimate for each of these training errors beside their own.

    What a search found for a training error that its spec asked for stays as it is.

    Args:
        statuses: points of any policy; eps: fractions between 0 and 1.
    """
    return [_with_errors(status, eps) for status in statuses]


def _with_errors(status: PointStatus, eps: Sequence[float]) -> PointStatus:
    if status.estimate is None or status.record is None:
        return status
    history = status.history
    estimates = {
        eps_name(one): estimate
        for one in sorted(eps)
        if (estimate := estimate_at(one, status.record.header.n_limit, history)) is not None
    }
    merged = {**estimates, **status.estimate.by_eps}
    by_eps = {name: merged[name] for name in sorted(merged, key=float)}
    return replace(status, estimate=replace(status.estimate, by_eps=by_eps))


def cut_short(statuses: Sequence[PointStatus], eps: Sequence[float]) -> int:
    """Return how many probes were given up while they missed more than the smallest of ``eps``.

    Their errors at their end are not known. They count as failures, which makes the EMC at a
    training error too small where there are many.
    """
    probes = [probe for status in statuses if status.record for probe in status.record.probes]
    least = min(eps, default=1.0)
    return sum(p.verdict == "hopeless" and p.n_errors > least * p.n for p in probes)
