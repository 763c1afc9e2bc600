"""Reasons why the EMC of a point is censored, that is, only a bound."""

from __future__ import annotations

from collections.abc import Sequence

from flexhpc.search.history import counted
from flexhpc.store.status import PointStatus

REASONS = {
    "all fitted": "every probe on all the samples that there are fitted them",
    "limit reached": "probes failed, but the estimate reached the number of samples that there are",
    "none failed": "no probe failed, but none was on all the samples that there are",
    "too few fitted": "some probes fitted, but at no n as many as the search asks for",
    "none fitted": "no probe fitted",
}
"""Reasons for censoring, as a short key and a full text. The first three apply to right-censored
points, whose EMC may be larger, the other two to left-censored points, whose EMC may be smaller."""


def why_bound(status: PointStatus) -> str:
    """Return the key of :data:`REASONS` that applies to a point; empty if it is not censored."""
    record, estimate = status.record, status.estimate
    if record is None or estimate is None or estimate.censored == "none":
        return ""
    probes = counted(status.history)
    if estimate.censored == "left":
        return "too few fitted" if any(probe.fit for probe in probes) else "none fitted"
    n_limit = record.header.n_limit
    on_all = [probe.fit for probe in probes if probe.n >= n_limit]
    if on_all and all(on_all):
        return "all fitted"
    reached = max(estimate.emc, estimate.largest_fit or 0) >= n_limit
    return "limit reached" if reached else "none failed"


def bounds(statuses: Sequence[PointStatus]) -> list[tuple[str, list[PointStatus]]]:
    """Group censored points by reason; return pairs of the full text and the points."""
    why = [why_bound(status) for status in statuses]
    by_reason = {
        text: [status for status, reason in zip(statuses, why, strict=True) if reason == key]
        for key, text in REASONS.items()
    }
    return [(text, some) for text, some in by_reason.items() if some]
