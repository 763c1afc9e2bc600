"""Reasons for failed points, for censored EMCs and for the end of searches; warnings about EMCs."""

from __future__ import annotations

from collections.abc import Sequence

from flexhpc.analysis.grouping import group_by
from flexhpc.config.sections.search import MajoritySearch
from flexhpc.search.history import accepted_probes
from flexhpc.store.status import PointStatus

REASONS = {
    "all fitted": "every probe that used all available samples fitted",
    "limit reached": "some probes failed, but the estimate reached the number of available samples",
    "none failed": "no probe failed, but no probe used all available samples",
    "too few fitted": "some probes fitted, but at no n did the majority of the probes fit",
    "none fitted": "no probe fitted",
}
"""Reasons why an EMC is censored: short key -> full text. The first three apply to right-censored
points, the other two to left-censored points."""
WIDER = "the interval is wider than the tolerance"
ONE_TRAINING = (
    "one training run per n, so the bracket would differ with another seed; for a narrower "
    "interval, set seeds_per_n or policy: bayes"
)
AT_EDGE = (
    "the best value of a tuned key is at an end of its range; a wider range may give a larger EMC"
)
NOT_SATURATED = (
    "not saturated: a larger budget would raise the EMC (see the column 2x budget), so the EMC "
    "applies only to the budget of the point"
)
TRAIN_EVAL_GAP = (
    "failing training runs fitted every batch of the last epoch, but missed samples in evaluation; "
    "in training, batch normalisation uses the statistics of each batch, and dropout is active"
)
NO_RESULT = "its worker ended without a result"
_MIN_GAP = 0.05
_MIN_GROUP = 3
"""Minimum number of points with the same error message that are reported in one line. Points with
a finished probe are always reported separately."""

Failures = dict[str, list[PointStatus]]
"""Error message -> points that failed with this message."""


def censoring_reason(status: PointStatus) -> str:
    """Return the key of :data:`REASONS` that applies to a point; empty if its EMC is uncensored."""
    record, estimate = status.record, status.estimate
    if record is None or estimate is None or estimate.censored == "none":
        return ""
    probes = accepted_probes(status.history)
    if estimate.censored == "left":
        return "too few fitted" if any(probe.fit for probe in probes) else "none fitted"
    n_limit = record.header.n_limit
    on_all = [probe.fit for probe in probes if probe.n >= n_limit]
    if on_all and all(on_all):
        return "all fitted"
    reached = max(estimate.emc, estimate.largest_fit or 0) >= n_limit
    return "limit reached" if reached else "none failed"


def is_censored(status: PointStatus) -> bool:
    """Return whether the EMC of a point is censored."""
    return status.estimate is not None and status.estimate.censored != "none"


def group_censored_by_reason(
    statuses: Sequence[PointStatus],
) -> list[tuple[str, list[PointStatus]]]:
    """Group the censored points by reason; return pairs (full text of the reason, points)."""
    by_reason = group_by(statuses, censoring_reason)
    return [(text, by_reason[reason]) for reason, text in REASONS.items() if reason in by_reason]


def exceeds_tolerance(status: PointStatus) -> bool | None:
    """Return whether the interval of an EMC is wider than the tolerance.

    None if the search has no tolerance, or if the EMC is unknown or censored. The interval is first
    narrowed by one sample at each end, because its ends were rounded outwards to whole samples.
    """
    estimate, tolerance = status.estimate, getattr(status.point.search, "tolerance", None)
    if tolerance is None or estimate is None or estimate.emc_hi is None or is_censored(status):
        return None
    lowest, highest = estimate.emc_lo + 1, estimate.emc_hi - 1
    return bool(highest > max(lowest * (1 + tolerance) ** 2, lowest))


def ending_text(status: PointStatus) -> str:
    """Return the reason why a search ended, such as ``tolerance`` or ``bracket (wide)``.

    ``bracket`` replaces ``tolerance`` for a bisection, which ends when its bracket is narrow
    enough. ``(wide)`` is appended if the interval is wider than the tolerance. The text is empty
    before the search has ended.
    """
    estimate = status.estimate
    if estimate is None or estimate.ended_by is None:
        return ""
    ending: str = estimate.ended_by
    if ending == "tolerance" and isinstance(status.point.search, MajoritySearch):
        ending = "bracket"
    return f"{ending} (wide)" if exceeds_tolerance(status) else ending


def emc_warnings(statuses: Sequence[PointStatus]) -> list[tuple[str, list[PointStatus]]]:
    """Return the warnings about EMCs, each with the points that it applies to."""
    groups = {
        WIDER: [s for s in statuses if exceeds_tolerance(s)],
        ONE_TRAINING: [
            s for s in statuses if s.estimate is not None
            and isinstance(s.point.search, MajoritySearch) and s.point.search.seeds_per_n == 1
        ],
        AT_EDGE: [s for s in statuses if best_value_at_edge(s)],
        NOT_SATURATED: [s for s in statuses if s.estimate and s.estimate.saturated == "no"],
        TRAIN_EVAL_GAP: [s for s in statuses if _has_train_eval_gap(s)],
    }  # fmt: skip
    return [(text, points) for text, points in groups.items() if points]


def _has_train_eval_gap(status: PointStatus) -> bool:
    """Return whether most failing training runs of a point failed only in evaluation.

    These training runs fitted every batch of their last epoch, but missed at least
    ``_MIN_GAP`` of the samples in evaluation.
    """
    runs = status.record.finished_runs if status.record else []
    failed = [run for run in runs if run.verdict != "fit"]
    gaps = [run.metrics.get("missed_only_in_evaluation", 0.0) >= _MIN_GAP * run.n for run in failed]
    return sum(gaps) > len(gaps) / 2


def warning_lines(statuses: Sequence[PointStatus]) -> list[str]:
    """Return one line per warning, with the number of points that it applies to."""
    return [
        f"{len(points)} of {len(statuses)} points: {text}."
        for text, points in emc_warnings(statuses)
    ]


def has_tuned_keys(statuses: Sequence[PointStatus]) -> bool:
    """Return whether any point has a tuned key."""
    return any(len(status.point.arms) > 1 for status in statuses)


def best_values_text(status: PointStatus) -> str:
    """Format the best values of the tuned keys, and the probability that they are the best.

    Example: ``lr=0.031, 88%``. A value at an end of its range is marked: ``lr=0.3 (edge), 62%``.
    The text is empty if no key is tuned, or before the first estimate.
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


def best_value_at_edge(status: PointStatus) -> bool:
    """Return whether the best value of any tuned key lies at an end of its range."""
    estimate = status.estimate
    if estimate is None or estimate.best_chance is None:
        return False
    return bool(status.point.arms[estimate.arm].edges)


def failures_by_message(statuses: Sequence[PointStatus]) -> Failures:
    """Group the failed points by error message."""
    failed = [status for status in statuses if status.state == "failed"]
    return group_by(failed, lambda status: status.message or NO_RESULT)


def common_failures(statuses: Sequence[PointStatus]) -> tuple[Failures, list[PointStatus]]:
    """Separate the points that failed with a common error message from all other points.

    Returns:
        A dict of each common error message -> its points, and a list of all other points in their
        original order. A message is common if at least ``_MIN_GROUP`` points failed with it before
        any of their probes finished.
    """
    by_message = failures_by_message([status for status in statuses if not status.probes])
    common = {text: points for text, points in by_message.items() if len(points) >= _MIN_GROUP}
    ids = {status.point.id for points in common.values() for status in points}
    return common, [status for status in statuses if status.point.id not in ids]


def common_failure_lines(common: Failures) -> list[str]:
    """Return one line per error message: ``24 points (first: width=4) failed: no such file``."""
    return [
        f"{len(points)} points (first: {_label_or_id(points[0])}) failed: {text}"
        for text, points in common.items()
    ]


def failure_lines(statuses: Sequence[PointStatus]) -> list[str]:
    """Return one line per error message: ``failed: width=4 and 23 more: no such file``."""
    return [
        f"failed: {points_text(points)}: {text}"
        for text, points in failures_by_message(statuses).items()
    ]


def points_text(points: Sequence[PointStatus]) -> str:
    """Return the label of the first point and the number of others: ``width=4 and 23 more``."""
    return _label_or_id(points[0]) + (f" and {len(points) - 1} more" if len(points) > 1 else "")


def _label_or_id(status: PointStatus) -> str:
    return status.point.label or status.point.id
