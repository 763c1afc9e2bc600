"""The plain policies, growth and bisection: from a history to what they want, and what they found.

Replayed from the history by the walks of :mod:`flexhpc.search.walk`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from flexhpc.search.fit_curve import FitCurve, posterior
from flexhpc.search.history import (
    TAILS,
    Bracket,
    Censored,
    EndedBy,
    EpsEstimate,
    Found,
    History,
    ProbeResult,
    by_n,
    counted,
    quorum,
)
from flexhpc.search.luck import interval_of_a_rule
from flexhpc.search.walk import Decide, Ended, Wanted, bisection, growth
from flexhpc.spec.sections.search import Bisection, Growth, Walk, eps_name


def wanted(search: Walk, n_limit: int, history: History) -> list[tuple[int, int]] | EndedBy:
    """Return (arm, n) of the probe that is needed next, or why the search has ended.

    The arm is always 0: these policies tune nothing.
    """
    bracket = Bracket()
    for number, walk in enumerate(_walks(search, n_limit, history)):
        if isinstance(walk, Wanted):
            return [(0, walk.n)]
        if number == 0:
            bracket = walk.bracket
    if bracket.smallest_fail is None or bracket.largest_fit is None:
        return "data"
    return "failure" if isinstance(search, Growth) else "tolerance"


def found(search: Walk, n_limit: int, history: History) -> Found | None:
    """Return the EMC for a perfect fit and for each eps; None while no n is decided."""
    walks = _walks(search, n_limit, history)
    first = next(walks)
    if first.bracket == Bracket():
        return None
    curve = posterior(history, n_limit)
    emc, lower, upper = _level(search, n_limit, curve, first.bracket)
    by_eps = {}
    if isinstance(search, Bisection) and search.eps is not None and isinstance(first, Ended):
        for eps, walk in zip(sorted(search.eps), walks, strict=False):
            if walk.bracket != Bracket():
                by_eps[eps_name(eps)] = _eps_estimate(eps, walk.bracket, n_limit, history)
    return Found(
        answer=EpsEstimate.within(emc, lower, upper, _censored(first.bracket)),
        by_eps=by_eps,
        bracket=first.bracket,
        width=curve.quantiles(curve.width, TAILS),
        lapse=curve.quantiles(curve.lapse, TAILS),
    )


def _walks(search: Walk, n_limit: int, history: History) -> Iterator[Wanted | Ended]:
    """Replay the walk to the fit, then those to each training error, the smallest first.

    All of them share their probes. Each begins where the one before ended; an open one is the last.
    """
    groups = by_n(counted(history))
    seeds_per_n = search.seeds_per_n

    def fits(n: int) -> bool | None:
        return quorum(groups.get(n, []), seeds_per_n)

    if isinstance(search, Growth):
        yield growth(fits, start=search.start, growth=search.growth, n_limit=n_limit)
        return
    if not isinstance(search, Bisection):
        raise TypeError(f"no such policy: {search.policy}")
    decisions: list[Decide] = [fits]
    decisions += [_below(eps, groups, seeds_per_n) for eps in sorted(search.eps or ())]
    start = search.start
    for decide in decisions:
        walk = bisection(decide, start=start, tolerance=search.tolerance, n_limit=n_limit)
        yield walk
        if isinstance(walk, Wanted):
            return
        start = walk.bracket.largest_fit or 1


def _below(eps: float, groups: dict[int, list[ProbeResult]], seeds_per_n: int) -> Decide:
    """Return what decides whether the mean training error at an n is at most ``eps``.

    The definition of Nakkiran et al. 2019 (arXiv 1912.02292, definition 1), over the probes that
    decide a fit.
    """
    needed = seeds_per_n // 2 + 1

    def decide(n: int) -> bool | None:
        results = groups.get(n, [])
        if len(results) < needed:
            return None
        return sum(result.n_errors for result in results) / (n * len(results)) <= eps

    return decide


def _level(
    search: Walk, n_limit: int, curve: FitCurve, bracket: Bracket
) -> tuple[int, float, float]:
    """Return the EMC and its interval (samples), for the estimand that was asked for."""
    low, high = bracket.largest_fit, bracket.smallest_fail
    if isinstance(search, Growth):
        return low or 0, *interval_of_a_rule(curve, search, n_limit, (TAILS[0], TAILS[2]))
    if not isinstance(search, Bisection):
        raise TypeError(f"no such policy: {search.policy}")
    q = search.quantile
    lower, middle, upper = curve.quantiles(curve.level_set(q), TAILS)
    if low is None:
        emc = 0
    elif high is None:  # that most fitted at `low` says less of the n at which 90 % do
        emc = low if q <= 0.5 else min(low, max(1, math.floor(lower)))
    elif q == 0.5:
        emc = math.isqrt(low * high)
    else:
        emc = min(max(1, round(middle)), n_limit)
    return emc, lower, upper


def _eps_estimate(eps: float, bracket: Bracket, n_limit: int, history: History) -> EpsEstimate:
    """Return the middle of a bracket, with the interval of the n at which half of the probes pass.

    The mean error over probes and the median agree where single errors scatter little around it.
    """
    curve = posterior(history, n_limit, eps)
    lower, _, upper = curve.quantiles(curve.level_set(0.5), TAILS)
    low, high = bracket.largest_fit, bracket.smallest_fail
    emc = low or 0 if low is None or high is None else math.isqrt(low * high)
    return EpsEstimate.within(emc, lower, upper, _censored(bracket))


def _censored(bracket: Bracket) -> Censored:
    if bracket.largest_fit is None:
        return "left"
    return "right" if bracket.smallest_fail is None else "none"
