"""The joint of every search: history -> the next probes, or the estimate. Pure: no torch."""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import binom

from flexhpc.search.fit_curve import FitCurve, posterior
from flexhpc.search.history import (
    LEVEL,
    Ask,
    Bracket,
    Censored,
    Estimate,
    History,
    by_n,
    quorum,
)
from flexhpc.search.walk import Ended, Wanted, bisection, growth, ladder
from flexhpc.spec.sections import Bisection, Growth, Search, Training

_TAIL = (1 - LEVEL) / 2
_PREDICTIVE_CURVES = 200


def advance(search: Search, n_limit: int, history: History) -> Ask | Estimate:
    """Return the probes to run next, or the estimate if the search has ended.

    Args:
        search: policy and its settings.
        n_limit: largest n there is (samples).
        history: every finished probe, in any order.
    """
    state = _walk(search, n_limit, history)
    if isinstance(state, Ended):
        return _estimate(search, n_limit, history, state.bracket, state.censored)
    if search.max_cost is not None and sum(r.cost for r in history) >= search.max_cost:
        estimate = estimate_so_far(search, n_limit, history)
        if estimate is not None:
            return estimate
    return Ask(probes=((state.n, sum(r.n == state.n for r in history)),))


def estimate_so_far(search: Search, n_limit: int, history: History) -> Estimate | None:
    """Return the honest answer of an unfinished search: wide, and censored where nothing bounds it.

    None while no n is decided.
    """
    bracket = _walk(search, n_limit, history).bracket
    if bracket == Bracket():
        return None
    censored: Censored = "none"
    if bracket.largest_fit is None:
        censored = "left"
    elif bracket.smallest_fail is None:
        censored = "right"
    return _estimate(search, n_limit, history, bracket, censored)


def bracket_of(search: Search, n_limit: int, history: History) -> Bracket:
    """Return the bracket that the search has reached."""
    return _walk(search, n_limit, history).bracket


def _walk(search: Search, n_limit: int, history: History) -> Wanted | Ended:
    groups = by_n(history)

    def decide(n: int) -> bool | None:
        return quorum(groups.get(n, []), search.seeds_per_n)

    if isinstance(search, Bisection):
        return bisection(decide, start=search.start, tolerance=search.tolerance, n_limit=n_limit)
    if isinstance(search, Growth):
        return growth(decide, start=search.start, growth=search.growth, n_limit=n_limit)
    raise TypeError(f"no such policy: {search.policy}")


def _estimate(
    search: Search, n_limit: int, history: History, bracket: Bracket, censored: Censored
) -> Estimate:
    low, high = bracket.largest_fit, bracket.smallest_fail
    if censored == "left":
        emc = 0
    elif isinstance(search, Bisection) and low is not None and high is not None:
        emc = math.isqrt(low * high)
    else:
        emc = low or 0
    curve = posterior(history)
    lower, upper = (
        _predictive(curve, search, n_limit)
        if isinstance(search, Growth)
        else curve.quantiles(curve.level_set(0.5), (_TAIL, 1 - _TAIL))
    )
    return Estimate(
        emc=emc,
        emc_lo=min(emc, math.floor(lower)) if censored != "left" else 0,
        emc_hi=None if censored == "right" else max(emc, math.ceil(upper)),
        level=LEVEL,
        estimand=search.estimand,
        censored=censored,
        largest_fit=low,
        smallest_fail=high,
        probes=len(history),
        cost=sum(result.cost for result in history),
        unconverged=sum(result.verdict == "unconverged" for result in history),
    )


def _predictive(curve: FitCurve, search: Growth, n_limit: int) -> list[float]:
    """Return the interval in which a repeated run of the growth rule would end.

    The last n before the first failure depends on luck; its distribution given a fit curve is
    exact, P(last = n_i) = p_1 ... p_i (1 - p_(i+1)), and is averaged over the posterior.
    """
    rungs = ladder(search.start, search.growth, n_limit)
    needed = search.seeds_per_n // 2 + 1
    total = np.zeros(len(rungs) + 1)
    ns = np.array(rungs, dtype=np.float64)
    thinned = curve.thin(_PREDICTIVE_CURVES)
    for cell in range(_PREDICTIVE_CURVES):
        one = FitCurve(
            threshold=thinned.threshold[[cell]],
            width=thinned.width[[cell]],
            lapse=thinned.lapse[[cell]],
            weight=np.ones(1),
        )
        chance = one.chance(ns)[0]
        passes = binom.sf(needed - 1, 2 * needed - 1, chance)
        survival = np.concatenate(([1.0], np.cumprod(passes)))
        total += survival - np.concatenate((survival[1:], [0.0]))
    below = np.cumsum(total) / total.sum()
    ends = np.concatenate(([0.0], ns))
    return [float(ends[np.searchsorted(below, level)]) for level in (_TAIL, 1 - _TAIL)]


def cost_bound(search: Search, training: Training, n_limit: int) -> int:
    """Return an upper bound on a point's cost: every probe trains to the end of its budget.

    Args:
        n_limit: largest n there is (samples).

    Returns:
        Sample passes.
    """
    if isinstance(search, Growth):
        rungs = ladder(search.start, search.growth, n_limit)
    elif isinstance(search, Bisection):
        rungs = ladder(search.start, 2.0, n_limit) + ladder(1, 2.0, min(search.start, n_limit))
        ratio = min(2.0, n_limit)
        narrowing = math.ceil(math.log2(max(1.0, math.log(ratio) / math.log1p(search.tolerance))))
        rungs += [n_limit] * (narrowing + 2)
    else:
        raise TypeError(f"no such policy: {search.policy}")
    repeats = 2 * (search.seeds_per_n // 2) + 1
    if training.epochs is not None:
        return sum(rungs) * training.epochs * repeats
    steps = training.steps or 0
    batch = getattr(training, "batch_size", None)
    passes = sum(n if batch is None else min(n, batch) for n in rungs)
    return passes * steps * repeats
