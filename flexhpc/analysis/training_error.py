"""EMC at training errors chosen after the run, from the stored error counts of the probes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from flexhpc.config.sections.search import eps_name
from flexhpc.search import estimate_at
from flexhpc.store.status import PointStatus


def with_errors(statuses: Sequence[PointStatus], eps: Sequence[float]) -> list[PointStatus]:
    """Add an estimate for each of these training errors to the points.

    Estimates for training errors that the spec requested are not changed.

    Args:
        statuses: points of any policy; eps: training errors, fractions between 0 and 1.
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
