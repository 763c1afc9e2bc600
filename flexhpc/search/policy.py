"""The joint of every search: history -> the next probes, or the estimate. Pure: no torch."""

from __future__ import annotations

import math
from collections.abc import Iterator

from flexhpc.search.fit_curve import FitCurve, posterior
from flexhpc.search.history import (
    LEVEL,
    Ask,
    Bracket,
    Censored,
    EpsEstimate,
    Estimate,
    History,
    ProbeResult,
    by_n,
    counted,
    quorum,
)
from flexhpc.search.luck import interval_of_a_rule
from flexhpc.search.walk import Decide, Ended, Wanted, bisection, growth
from flexhpc.spec.sections import Bisection, Growth, Search
from flexhpc.spec.sections.search import eps_name

_TAIL = (1 - LEVEL) / 2


def advance(search: Search, n_limit: int, history: History) -> Ask | Estimate:
    """Return the probes to run next, or the estimate if the search has ended.

    Args:
        search: policy and its settings.
        n_limit: largest n there is (samples).
        history: every finished probe, in any order.
    """
    wanted = next((w for w in _walks(search, n_limit, history) if isinstance(w, Wanted)), None)
    spent = sum(result.cost for result in history)
    if wanted is None or (search.max_cost is not None and spent >= search.max_cost):
        estimate = estimate_so_far(search, n_limit, history)
        if estimate is not None:
            return estimate
    assert wanted is not None, "a walk that has ended has decided some n"
    return Ask(probes=((wanted.n, sum(r.n == wanted.n for r in history)),))


def estimate_so_far(search: Search, n_limit: int, history: History) -> Estimate | None:
    """Return the honest answer of a search: wide while it is unfinished, and censored where nothing
    bounds it. None while no n is decided.
    """
    walks = _walks(search, n_limit, history)
    first = next(walks)
    bracket = first.bracket
    if bracket == Bracket():
        return None
    curve = posterior(history)
    emc, lower, upper = _level(search, n_limit, curve, bracket)
    censored = _censored(bracket)
    by_eps = {}
    if isinstance(search, Bisection) and search.eps is not None and isinstance(first, Ended):
        for eps, walk in zip(sorted(search.eps), walks, strict=False):
            if walk.bracket != Bracket():
                by_eps[eps_name(eps)] = _eps_estimate(eps, walk.bracket, history)
    return Estimate(
        emc=emc,
        emc_lo=min(emc, math.floor(lower)) if censored != "left" else 0,
        emc_hi=None if censored == "right" else max(emc, math.ceil(upper)),
        level=LEVEL,
        estimand=search.estimand,
        censored=censored,
        largest_fit=bracket.largest_fit,
        smallest_fail=bracket.smallest_fail,
        probes=len(history),
        cost=sum(result.cost for result in history),
        unconverged=sum(result.verdict == "unconverged" for result in history),
        rejected=len(history) - len(counted(history)),
        by_eps=by_eps,
    )


def bracket_of(search: Search, n_limit: int, history: History) -> Bracket:
    """Return the bracket that the search has reached."""
    return next(_walks(search, n_limit, history)).bracket


def _walks(search: Search, n_limit: int, history: History) -> Iterator[Wanted | Ended]:
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
    search: Search, n_limit: int, curve: FitCurve, bracket: Bracket
) -> tuple[int, float, float]:
    """Return the EMC and its interval (samples), for the estimand that was asked for."""
    low, high = bracket.largest_fit, bracket.smallest_fail
    if isinstance(search, Growth):
        return low or 0, *interval_of_a_rule(curve, search, n_limit, (_TAIL, 1 - _TAIL))
    q = int(search.estimand.removeprefix("n")) / 100
    lower, middle, upper = curve.quantiles(curve.level_set(q), (_TAIL, 0.5, 1 - _TAIL))
    if low is None:
        emc = 0
    elif high is None:  # that most fitted at `low` says less of the n at which 90 % do
        emc = low if q <= 0.5 else min(low, max(1, math.floor(lower)))
    elif q == 0.5:
        emc = math.isqrt(low * high)
    else:
        emc = min(max(1, round(middle)), n_limit)
    return emc, lower, upper


def _eps_estimate(eps: float, bracket: Bracket, history: History) -> EpsEstimate:
    """Return the middle of a bracket, with the interval of the n at which half of the probes pass.

    The mean error over probes and the median agree where single errors scatter little around it.
    """

    def passed(result: ProbeResult) -> bool:
        return result.n_errors <= eps * result.n

    curve = posterior(history, passed)
    lower, upper = curve.quantiles(curve.level_set(0.5), (_TAIL, 1 - _TAIL))
    low, high = bracket.largest_fit, bracket.smallest_fail
    censored = _censored(bracket)
    emc = low or 0 if low is None or high is None else math.isqrt(low * high)
    return EpsEstimate(
        emc=emc,
        emc_lo=min(emc, math.floor(lower)) if censored != "left" else 0,
        emc_hi=None if censored == "right" else max(emc, math.ceil(upper)),
        censored=censored,
    )


def _censored(bracket: Bracket) -> Censored:
    if bracket.largest_fit is None:
        return "left"
    return "right" if bracket.smallest_fail is None else "none"
