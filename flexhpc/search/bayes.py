"""The Bayesian policy: probe where it tells most for its cost, until the interval is narrow.

Everything is a function of the history: the posterior of the fit curve, the next n, and the end.
"""

from __future__ import annotations

import math
from dataclasses import replace

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
    lowest = max(1, min(result.n for result in history) // 2)
    for number, eps in enumerate(_targets(search), start=1):
        if len(history) >= number * search.max_probes:
            continue
        curve = posterior(history, n_limit, eps)
        narrow = _narrow(curve, search, n_limit, eps)
        end = _untried_end(history, n_limit, eps) if narrow else None
        if narrow and end is None:
            continue
        return choose(
            curve,
            _level(search, eps),
            Prices.of(history),
            (lowest, n_limit),
            belief.log_weight if belief is not None and eps is None else None,
            count=search.at_once,
            given=[] if end is None else [max(end, lowest)],
        )
    return None


def _first(search: Bayes, n_limit: int, belief: Belief | None) -> list[int]:
    """Return where to begin: at ``start`` and its doubles, or where neighbours expect the EMC."""
    first = search.start if belief is None else round(math.exp(belief.centre))
    first = min(max(first, 1), n_limit)
    if belief is None:
        return [min(first * 2**i, n_limit) for i in range(search.at_once)]
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
        eps_name(eps): _answer(posterior(history, n_limit, eps), search, n_limit, history, eps)
        for eps in _targets(search)
        if eps is not None
    }
    return Found(
        answer=_answer(curve, search, n_limit, history, None),
        by_eps=by_eps,
        bracket=bracket_of(history),
        width=curve.quantiles(curve.width, TAILS),
        lapse=curve.quantiles(curve.lapse, TAILS),
    )


def bracket_of(history: History) -> Bracket:
    """Return the largest n that any probe fitted and the smallest at which any failed."""
    fits, fails = _split(history, None)
    return Bracket(largest_fit=max(fits, default=None), smallest_fail=min(fails, default=None))


def _targets(search: Bayes) -> list[float | None]:
    """Return the training errors whose n is estimated; None is a perfect fit."""
    return [None, *sorted(search.eps or ())]


def _level(search: Bayes, eps: float | None) -> float:
    """Return which part of the trainings is to pass: for a training error, half of them."""
    return search.quantile if eps is None else 0.5


def _narrow(curve: FitCurve, search: Bayes, n_limit: int, eps: float | None) -> bool:
    """Return whether the interval, cut to the n that there are, lies within the tolerance."""
    ends = curve.quantiles(curve.level_set(_level(search, eps)), TAILS)
    lower, _, upper = (min(max(end, 1.0), float(n_limit)) for end in ends)
    return upper <= lower * (1 + search.tolerance) ** 2 or upper - lower < 1


def _untried_end(history: History, n_limit: int, eps: float | None) -> int | None:
    """Return the end of all n that must be tried before an estimate may be censored there."""
    fits, fails = _split(history, eps)
    if not fails and n_limit not in fits:
        return n_limit
    return 1 if not fits and 1 not in fails else None


def _answer(
    curve: FitCurve, search: Bayes, n_limit: int, history: History, eps: float | None
) -> EpsEstimate:
    lower, middle, upper = curve.quantiles(curve.level_set(_level(search, eps)), TAILS)
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
