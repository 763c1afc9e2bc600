"""Why a search ended, and warnings about intervals."""

from __future__ import annotations

from collections.abc import Sequence

from flexhpc.analysis.tuning import AT_EDGE, at_edge
from flexhpc.config import Search
from flexhpc.config.sections.search import Walk
from flexhpc.search import Estimate
from flexhpc.store.status import PointStatus

WIDER = "the interval is wider than the tolerance"
ONE_TRAINING = (
    "one training per n: the bracket rests on single trainings, another seed ends elsewhere in the "
    "interval; seeds_per_n or policy: bayes narrows it"
)


def wider(search: Search, estimate: Estimate) -> bool | None:
    """Return whether the interval exceeds the tolerance; None without a tolerance or an interval.

    The ends of an interval are whole numbers of samples, so each may lie one sample further out.
    """
    asked = getattr(search, "tolerance", None)
    if asked is None or estimate.censored != "none" or estimate.emc_hi is None:
        return None
    lowest, highest = estimate.emc_lo + 1, estimate.emc_hi - 1
    return bool(highest > max(lowest * (1 + asked) ** 2, lowest))


def one_training(search: Search) -> bool:
    """Return whether a single training decides whether the samples at each n are fitted."""
    return isinstance(search, Walk) and search.seeds_per_n == 1


def ending_text(status: PointStatus) -> str:
    """Return why a search ended: ``tolerance``, ``max_trainings``, ``bracket (wide)``.

    ``bracket`` replaces ``tolerance`` for a bisection, which ends when its bracket is narrow
    enough. ``(wide)`` is appended where the interval is wider than the tolerance. Empty while the
    search has not ended.
    """
    estimate = status.estimate
    if estimate is None or estimate.ended_by is None:
        return ""
    ending: str = estimate.ended_by
    if ending == "tolerance" and isinstance(status.point.search, Walk):
        ending = "bracket"
    return f"{ending} (wide)" if wider(status.point.search, estimate) else ending


def warnings(statuses: Sequence[PointStatus]) -> list[tuple[str, list[PointStatus]]]:
    """Return pairs of a warning about intervals and the points that it applies to."""
    estimated = [status for status in statuses if status.estimate is not None]
    wide = [s for s in estimated if s.estimate and wider(s.point.search, s.estimate)]
    single = [status for status in estimated if one_training(status.point.search)]
    edge = [status for status in estimated if at_edge(status)]
    groups = ((WIDER, wide), (ONE_TRAINING, single), (AT_EDGE, edge))
    return [(text, some) for text, some in groups if some]


def warning_lines(statuses: Sequence[PointStatus]) -> list[str]:
    """Return one line per warning, with the number of points that it applies to."""
    return [f"{len(some)} of {len(statuses)} points: {text}." for text, some in warnings(statuses)]
