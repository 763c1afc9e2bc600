"""The Bayesian policy: probe where it tells most for its cost, until the interval is narrow.

Everything is a function of the history: the posterior of the fit curve, the next n, and the end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle, islice

from flexhpc.config.sections.search import Bayes, Level, eps_name
from flexhpc.search.arms import Contest, Coordinates, contest
from flexhpc.search.design import Draws, Prices, choose
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
    counted,
    passes,
)
from flexhpc.search.policy import Policy, Wanted

_HALF = 0.5
"""Part of the trainings that passes at the n which is estimated for a training error."""
_BESIDE = 1.05
"""How far outside an interval's end the nearest fit (failure) may lie, as a factor."""
_REGRET = 0.25
"""Part of the tolerance by which another arm may be expected to lie above the best one."""
MORE_FOR_ARMS = 2.0
"""Factor of the caps where keys are tuned."""


def wanted(
    search: Bayes, n_limit: int, history: History, coordinates: Coordinates
) -> Wanted | EndedBy:
    """Return the next ``at_once`` probes, or why the search has ended.

    Args:
        search: policy and its settings; n_limit: largest n there is (samples).
        history: finished probes, in any order.
        coordinates: of the arms; see :mod:`flexhpc.search.arms`.
    """
    if not history:
        return _first(search, n_limit, len(coordinates))
    known = None
    if len(coordinates) > 1:
        known = contest(history, n_limit, search.quantile, coordinates)
    arm = 0 if known is None else known.best
    own = _of_arm(history, arm)
    contested = known if known and known.regret > _REGRET * search.tolerance else None
    ended: EndedBy = "tolerance"
    for number, eps in enumerate(_targets(search), start=1):
        curve = known.own[arm] if known and eps is None else posterior(own, n_limit, eps)
        lower, upper = _ends(curve, search, n_limit, eps)
        narrow = upper <= lower * (1 + search.tolerance) ** 2 or upper - lower < 1
        untried = _untried(own, lower, upper, n_limit, eps) if narrow else None
        if narrow and untried is None and contested is None:
            answer = _answer(curve, _level(search, eps), n_limit, own, eps)
            ended = "tolerance" if answer.censored == "none" or number > 1 else "data"
            continue
        cap = _cap(search, history, number, len(coordinates))
        if cap is not None:
            ended = cap
            continue
        if contested is None:
            some, draws = [arm], Draws.of_one(curve, _level(search, eps))
        else:
            some, draws = list(range(len(coordinates))), Draws.of_arms(contested)
        lowest = [_lowest(history, a, search.at_once) for a in some]
        place = some.index(arm)
        chosen = choose(
            draws,
            Prices.of(history),
            [(low, n_limit) for low in lowest],
            count=search.at_once,
            given=[] if untried is None else [(place, max(untried, lowest[place]))],
        )
        return [(some[a], n) for a, n in chosen]
    return ended


def _cap(search: Bayes, history: History, number: int, arms: int) -> EndedBy | None:
    """Return the cap that the probes have reached, if there is one.

    Args:
        number: of targets for which caps are counted; arms: how many.
    """
    if search.max_probes is not None and len(history) >= number * search.max_probes:
        return "max_probes"
    if search.max_trainings is not None:
        most = search.max_trainings * number * (MORE_FOR_ARMS if arms > 1 else 1)
        if Prices.of(history).trainings(history) >= most:
            return "max_trainings"
    return None


def _of_arm(history: History, arm: int) -> list[ProbeResult]:
    return [result for result in history if result.arm == arm]


def _lowest(history: History, arm: int, count: int) -> int:
    """Return the smallest n that may come next: half of the smallest so far, once per probe.

    1 comes last of all, and where nothing else fitted: a network with batch normalisation cannot
    train on it.
    """
    own = _of_arm(history, arm) or history
    smallest = min(result.n for result in own)
    last = smallest < 4 and all(result.verdict != "fit" for result in history)
    return min(smallest, max(smallest >> count, 1 if last else 2))


def _first(search: Bayes, n_limit: int, arms: int) -> Wanted:
    """Return where to begin: at ``start``, its doubles and, where data ends, its halves.

    Of several arms the one in the middle is first, and those around it follow.
    """
    first = min(max(search.start, 1), n_limit)
    doubles = dict.fromkeys(min(first * 2**i, n_limit) for i in range(search.at_once))
    halves = (first // 2**i for i in range(1, search.at_once))
    ladder = [*doubles, *(n for n in halves if n > 1)]
    order = sorted(range(arms), key=lambda arm: abs(arm - (arms - 1) // 2))
    if arms > 1:
        return [(arm, first) for arm in islice(cycle(order), search.at_once)]
    return [(0, n) for n in islice(cycle(ladder), search.at_once)]


def found(
    search: Bayes, n_limit: int, history: Sequence[ProbeResult], coordinates: Coordinates
) -> Found:
    """Return the EMC for a perfect fit and for each eps, of the best arm.

    Args:
        search, n_limit, coordinates: as in :func:`wanted`; history: with a probe that counts.
    """
    known: Contest | None = None
    if len(coordinates) > 1:
        known = contest(history, n_limit, search.quantile, coordinates)
    arm = 0 if known is None else known.best
    own = _of_arm(history, arm)
    curve = known.own[arm] if known else posterior(own, n_limit)
    by_eps = {
        eps_name(eps): _answer(posterior(own, n_limit, eps), _HALF, n_limit, own, eps)
        for eps in _targets(search)
        if eps is not None
    }
    return Found(
        answer=_answer(curve, search.quantile, n_limit, own, None),
        by_eps=by_eps,
        bracket=bracket_of(own),
        width=curve.quantiles(curve.width, TAILS),
        lapse=curve.quantiles(curve.lapse, TAILS),
        arm=arm,
        best_chance=None if known is None else known.best_chance,
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


def _level(search: Level, eps: float | None) -> float:
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

    Verdicts have to bound it on both sides: missed samples may say where the EMC lies, but that
    alone is not enough. Without any fit (any failure) that is at 1 (at the largest n).
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


def worst(search: Bayes, n_limit: int, *, rejects: bool, tuned: bool) -> list[tuple[int, float]]:
    """Return how many whole trainings it plans at most."""
    caps: list[float] = []
    if search.max_trainings is not None:
        caps.append(search.max_trainings * (MORE_FOR_ARMS if tuned else 1))
    if search.max_probes is not None:
        caps.append(search.max_probes)
    targets = 1 + len(search.eps or ())
    # A round is planned below the cap and may end above it.
    return [(n_limit, min(caps, default=math.inf) * targets + search.at_once - 1)]


POLICY = Policy(wanted=wanted, found=found, worst=worst)
