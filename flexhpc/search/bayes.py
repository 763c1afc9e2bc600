"""The Bayesian policy: probe where it tells most for its cost, until the interval is narrow.

Everything is a function of the history: the posterior of the fit curve, the next n, and the end.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import cycle, islice

from flexhpc.search.design import Prices, choose
from flexhpc.search.fit_curve import FitCurve, posterior
from flexhpc.search.history import (
    TAILS,
    Bracket,
    Censored,
    EpsEstimate,
    Found,
    History,
    counted,
    passes,
)
from flexhpc.search.neighbours import Belief
from flexhpc.spec.sections import Bayes
from flexhpc.spec.sections.search import eps_name

_HALF = 0.5
"""Part of the trainings that passes at the n which is estimated for a training error."""
_BESIDE = 1.05
"""How far outside an interval's end the nearest fit (failure) may lie, as a factor."""


def wanted(
    search: Bayes, n_limit: int, history: History, belief: Belief | None
) -> list[int] | None:
    """Return the n of the next ``at_once`` probes, or None if the search has ended.

    Args:
        search: policy and its settings; n_limit: largest n there is (samples).
        history: finished probes, in any order.
        belief: what neighbours say of the threshold.
    """
    if not history:
        return _first(search, n_limit, belief)
    lowest = _lowest(history, search.at_once)
    for number, eps in enumerate(_targets(search), start=1):
        if len(history) >= number * search.max_probes:
            continue
        curve = posterior(history, n_limit, eps)
        lower, upper = _ends(curve, search, n_limit, eps)
        narrow = upper <= lower * (1 + search.tolerance) ** 2 or upper - lower < 1
        untried = _untried(history, lower, upper, n_limit, eps) if narrow else None
        if narrow and untried is None:
            continue
        return choose(
            curve,
            _level(search, eps),
            Prices.of(history),
            (lowest, n_limit),
            belief.log_weight if belief is not None and eps is None else None,
            count=search.at_once,
            given=[] if untried is None else [max(untried, lowest)],
        )
    return None


def _lowest(history: History, count: int) -> int:
    """Return the smallest n that may come next: half of the smallest so far, once per probe.

    1 comes last of all, and where nothing else fitted: a network with batch normalisation cannot
    train on it.
    """
    smallest = min(result.n for result in history)
    last = smallest < 4 and all(result.verdict != "fit" for result in history)
    return min(smallest, max(smallest >> count, 1 if last else 2))


def _first(search: Bayes, n_limit: int, belief: Belief | None) -> list[int]:
    """Return where to begin: at ``start``, its doubles and, where data ends, its halves; or where
    neighbours expect the EMC.
    """
    first = search.start if belief is None else round(math.exp(belief.centre))
    first = min(max(first, 1), n_limit)
    if belief is None:
        doubles = dict.fromkeys(min(first * 2**i, n_limit) for i in range(search.at_once))
        halves = (first // 2**i for i in range(1, search.at_once))
        ladder = [*doubles, *(n for n in halves if n > 1)]
        return list(islice(cycle(ladder), search.at_once))
    return choose(
        posterior([], n_limit),
        _level(search, None),
        Prices.of([]),
        (1, n_limit),
        belief.log_weight,
        count=search.at_once,
        given=[first],
    )


def found(search: Bayes, n_limit: int, history: History) -> Found | None:
    """Return the EMC for a perfect fit and for each eps; None while no probe counts.

    If there are to be no more probes and all were refused, they count as the failures that they
    are.
    """
    if not counted(history):
        if len(history) < search.max_probes:
            return None
        history = [replace(result, rejected=False) for result in history]
    curve = posterior(history, n_limit)
    by_eps = {
        eps_name(eps): _answer(posterior(history, n_limit, eps), _HALF, n_limit, history, eps)
        for eps in _targets(search)
        if eps is not None
    }
    return Found(
        answer=_answer(curve, search.quantile, n_limit, history, None),
        by_eps=by_eps,
        bracket=bracket_of(history),
        width=curve.quantiles(curve.width, TAILS),
        lapse=curve.quantiles(curve.lapse, TAILS),
    )


def estimate_at(eps: float, n_limit: int, history: History) -> EpsEstimate | None:
    """Return the largest n trained to at most a training error, from the probes of any policy.

    The n at which half of the trainings end with at most ``eps`` n missed, as the Bayesian search
    estimates it where it is asked to; here no probe was placed for it, so the interval is wider.
    A probe that was given up counts with what it missed when it was stopped.

    Args:
        eps: part of the samples that may be missed, between 0 and 1.
        n_limit: largest n there is (samples); history: finished probes, in any order.

    Returns:
        None while no probe counts.
    """
    if not counted(history):
        return None
    return _answer(posterior(history, n_limit, eps), _HALF, n_limit, history, eps)


def bracket_of(history: History) -> Bracket:
    """Return the largest n that any probe fitted and the smallest at which any failed."""
    fits, fails = _split(history, None)
    return Bracket(largest_fit=max(fits, default=None), smallest_fail=min(fails, default=None))


def _targets(search: Bayes) -> list[float | None]:
    """Return the training errors whose n is estimated; None is a perfect fit."""
    return [None, *sorted(search.eps or ())]


def _level(search: Bayes, eps: float | None) -> float:
    """Return which part of the trainings is to pass: for a training error, half of them."""
    return search.quantile if eps is None else _HALF


def _ends(curve: FitCurve, search: Bayes, n_limit: int, eps: float | None) -> tuple[float, float]:
    """Return the interval, cut to the n that there are."""
    ends = curve.quantiles(curve.level_set(_level(search, eps)), TAILS)
    lower, _, upper = (min(max(end, 1.0), float(n_limit)) for end in ends)
    return lower, upper


def _untried(
    history: History, lower: float, upper: float, n_limit: int, eps: float | None
) -> int | None:
    """Return an n that must be tried before an estimate may rest on this interval, if there is one.

    Verdicts have to bound it on both sides: missed samples or the budget used may say where the
    EMC lies, but that alone is not enough. Without any fit (any failure) that is at 1 (at the
    largest n).
    """
    fits, fails = _split(history, eps)
    if not fails:
        return None if n_limit in fits else n_limit
    if not fits:
        return None if 1 in fails else 1
    low, high = math.floor(lower / _BESIDE), min(math.ceil(upper * _BESIDE), n_limit)
    if max(fits) < low:
        return low
    return high if min(fails) > high else None


def _answer(
    curve: FitCurve, level: float, n_limit: int, history: History, eps: float | None
) -> EpsEstimate:
    lower, middle, upper = curve.quantiles(curve.level_set(level), TAILS)
    fits, fails = _split(history, eps)
    censored: Censored = "none"
    emc = max(1, round(middle))
    if not fits:
        censored, emc = "left", 0
    elif not fails:
        censored, emc = "right", max(fits)
    elif middle >= n_limit:
        censored, emc = "right", n_limit
    return EpsEstimate.within(emc, lower, upper, censored)


def _split(history: History, eps: float | None) -> tuple[list[int], list[int]]:
    """Return the n of the probes that fit, and of those that do not."""
    fits = passes(eps)
    some = counted(history)
    return [r.n for r in some if fits(r)], [r.n for r in some if not fits(r)]
