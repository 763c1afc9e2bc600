"""Bisection as a policy: double until a failure, then bisect in log n."""

from __future__ import annotations

import math
from collections.abc import Iterator

from flexhpc.config.sections.search import Bisection, eps_name
from flexhpc.search.arms import Coordinates
from flexhpc.search.fit_curve import FitCurve, posterior
from flexhpc.search.history import (
    TAILS,
    Bracket,
    EndedBy,
    EpsEstimate,
    Found,
    History,
    by_n,
    counted,
)
from flexhpc.search.policy import Policy, Wanted
from flexhpc.search.walk import Decide, Standing, bisection, by_quorum, ladder, most_probes


def wanted(search: Bisection, n_limit: int, history: History, _: Coordinates) -> Wanted | EndedBy:
    """Return the probe that is needed next, or why the search has ended."""
    walks = list(_walks(search, n_limit, history))
    if walks[-1].wanted is not None:
        return [(0, walks[-1].wanted)]
    return "tolerance" if walks[0].bracket.censored == "none" else "data"


def found(search: Bisection, n_limit: int, history: History, _: Coordinates) -> Found | None:
    """Return the EMC for a perfect fit and for each eps; None while no n is decided."""
    walks = _walks(search, n_limit, history)
    first = next(walks)
    if first.bracket == Bracket():
        return None
    curve = posterior(history, n_limit)
    by_eps = {}
    for eps, walk in zip(sorted(search.eps or ()), walks, strict=False):
        if walk.bracket != Bracket():
            by_eps[eps_name(eps)] = _eps_estimate(eps, walk.bracket, n_limit, history)
    return Found(
        answer=_answer(search, n_limit, curve, first.bracket),
        by_eps=by_eps,
        bracket=first.bracket,
        width=curve.quantiles(curve.width, TAILS),
        lapse=curve.quantiles(curve.lapse, TAILS),
    )


def worst(
    search: Bisection, n_limit: int, *, rejects: bool, tuned: bool
) -> list[tuple[int, float]]:
    """Return (n, probes) of all that it may ask for."""
    rungs = ladder(search.start, 2.0, n_limit) + ladder(1, 2.0, min(search.start, n_limit))
    ratio = min(2.0, n_limit)
    narrowing = math.ceil(math.log2(max(1.0, math.log(ratio) / math.log1p(search.tolerance))))
    walks = 1 + len(search.eps or ())
    ns = rungs + [n_limit] * ((narrowing + 2) * walks + (walks - 1) * len(rungs))
    each = most_probes(search, rejects)
    return [(n, each) for n in ns]


def _walks(search: Bisection, n_limit: int, history: History) -> Iterator[Standing]:
    """Replay the walk to the fit, then those to each training error, the smallest first.

    All of them share their probes. Each begins where the one before ended; an open one is the last.
    """
    decisions = [by_quorum(history, search.seeds_per_n)]
    decisions += [_below(eps, history, search.seeds_per_n) for eps in sorted(search.eps or ())]
    start = search.start
    for decide in decisions:
        walk = bisection(decide, start=start, tolerance=search.tolerance, n_limit=n_limit)
        yield walk
        if walk.wanted is not None:
            return
        start = walk.bracket.largest_fit or 1


def _below(eps: float, history: History, seeds_per_n: int) -> Decide:
    """Return what decides whether the mean training error at an n is at most ``eps``.

    The definition of Nakkiran et al. 2019 (arXiv 1912.02292, definition 1), over the probes that
    decide a fit.
    """
    groups, needed = by_n(counted(history)), seeds_per_n // 2 + 1

    def decide(n: int) -> bool | None:
        results = groups.get(n, [])
        if len(results) < needed:
            return None
        return sum(result.n_errors for result in results) / (n * len(results)) <= eps

    return decide


def _answer(search: Bisection, n_limit: int, curve: FitCurve, bracket: Bracket) -> EpsEstimate:
    """Return the EMC and its interval, for the estimand that was asked for."""
    low, high, q = bracket.largest_fit, bracket.smallest_fail, search.quantile
    lower, middle, upper = curve.quantiles(curve.level_set(q), TAILS)
    if low is None:
        emc = 0
    elif high is None:  # that most fitted at `low` says less of the n at which 90 % do
        emc = low if q <= 0.5 else min(low, max(1, math.floor(lower)))
    elif q == 0.5:
        emc = math.isqrt(low * high)
    else:
        emc = min(max(1, round(middle)), n_limit)
    return EpsEstimate.within(emc, lower, upper, bracket.censored)


def _eps_estimate(eps: float, bracket: Bracket, n_limit: int, history: History) -> EpsEstimate:
    """Return the middle of a bracket, with the interval of the n at which half of the probes pass.

    The mean error over probes and the median agree where single errors scatter little around it.
    """
    curve = posterior(history, n_limit, eps)
    lower, _, upper = curve.quantiles(curve.level_set(0.5), TAILS)
    low, high = bracket.largest_fit, bracket.smallest_fail
    emc = low or 0 if low is None or high is None else math.isqrt(low * high)
    return EpsEstimate.within(emc, lower, upper, bracket.censored)


POLICY = Policy(wanted=wanted, found=found, worst=worst)
