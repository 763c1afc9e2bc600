"""Bayesian policy: choose the probes with the most information per cost.

The search ends when the interval of the EMC is narrow enough or the cost reaches ``max_cost``.
"""

from __future__ import annotations

import math
from itertools import cycle, islice

from flexhpc.config.sections.search import Bayes, format_eps
from flexhpc.search.arms import ArmPosteriors, Coordinates, arm_posteriors
from flexhpc.search.design import CostModel, GroupedDraws, choose_probes
from flexhpc.search.fit_curve import FitCurve, posterior
from flexhpc.search.history import (
    Bracket,
    EmcInterval,
    EndedBy,
    Estimate,
    History,
    ProbeResult,
    accepted_probes,
)
from flexhpc.search.policy import Policy, Proposal, cost_cap, make_estimate

_EPS_LEVEL = 0.5
"""The EMC at a training error ``eps`` is the n at which this fraction of training runs ends with a
training error of at most ``eps``."""
_MAX_REGRET = 0.25
"""The comparison of arms stops if the expected regret of the best arm is at most this fraction of
the tolerance."""


def propose(
    search: Bayes, n_limit: int, history: History, coordinates: Coordinates
) -> Proposal | EndedBy:
    """Return the next ``at_once`` probes as pairs (arm, n), or why the search has ended."""
    if not history:
        return _propose_first_round(search, n_limit, len(coordinates))
    arms, arm, results, fit_curve = _find_best_arm(search, n_limit, history, coordinates)
    compared = arms if arms and arms.regret > _MAX_REGRET * search.tolerance else None
    costs = CostModel.from_history(history)
    spent = costs.cost_in_whole_runs(history)
    ended_by: EndedBy = "tolerance"
    for number, eps in enumerate([None, *sorted(search.eps or ())], start=1):
        q = search.quantile if eps is None else _EPS_LEVEL
        curve = fit_curve if eps is None else posterior(results, n_limit, eps)
        ends = curve.quantiles(curve.n_at_fit_probability(q))
        lower, _, upper = (min(max(end, 1.0), float(n_limit)) for end in ends)
        narrow = upper <= lower * (1 + search.tolerance) ** 2 or upper - lower < 1
        unprobed = _unprobed_end(results, n_limit, eps) if narrow else None
        if narrow and unprobed is None and compared is None:
            if eps is None and _emc_interval(curve, q, n_limit, results, eps).censored != "none":
                ended_by = "data"
            continue
        if spent >= cost_cap(search, len(coordinates), number):
            ended_by = "max_cost"
            continue
        if compared is None:
            draws = GroupedDraws.from_curve(arm, curve, q)
        else:
            draws = GroupedDraws.from_arms(compared)
        lowest = {
            candidate: _smallest_allowed_n(history, candidate, halvings=search.at_once)
            for candidate in draws.curves
        }
        required = [] if unprobed is None else [(arm, max(unprobed, lowest[arm]))]
        return choose_probes(
            draws, costs, lowest, n_limit, history, count=search.at_once, required=required
        )
    return ended_by


def _find_best_arm(
    search: Bayes, n_limit: int, history: History, coordinates: Coordinates
) -> tuple[ArmPosteriors | None, int, list[ProbeResult], FitCurve]:
    """Return the joint posterior of all arms; and of the best arm: index, probes and fit curve.

    The joint posterior is None if there is only one arm.
    """
    arms = None
    if len(coordinates) > 1:
        arms = arm_posteriors(history, n_limit, search.quantile, coordinates)
    arm = 0 if arms is None else arms.best_arm
    results = [result for result in history if result.arm == arm]
    curve = posterior(results, n_limit) if arms is None else arms.separate_curves[arm]
    return arms, arm, results, curve


def _smallest_allowed_n(history: History, arm: int, *, halvings: int) -> int:
    """Return the smallest n that the policy is allowed to propose for an arm.

    This is the smallest n tried for this arm, or for any arm if this arm has no probes, halved
    ``halvings`` times. It is at least 2, because a network with batch normalisation cannot be
    trained on one sample. n = 1 is allowed only if no probe with n > 1 fitted and the smallest n
    tried is below 4.
    """
    smallest = min([r.n for r in history if r.arm == arm] or [r.n for r in history])
    last = smallest < 4 and all(r.verdict != "fit" for r in history if r.n > 1)
    return max(smallest >> halvings, 1 if last else 2)


def _propose_first_round(search: Bayes, n_limit: int, arm_count: int) -> Proposal:
    """Return the first ``at_once`` probes as pairs (arm, n).

    With one arm, the values of n are ``start`` times 1, 2, 4, ..., capped at ``n_limit``. If fewer
    than ``at_once`` of them are distinct, ``start`` times 1/2, 1/4, ... follow. With several arms,
    n is ``start`` in every probe; the middle arm comes first, and the outermost arms come last.
    """
    first = min(search.start, n_limit)
    doubles = dict.fromkeys(min(first * 2**i, n_limit) for i in range(search.at_once))
    halves = (first // 2**i for i in range(1, search.at_once))
    multiples = [*doubles, *(n for n in halves if n > 1)]
    order = sorted(range(arm_count), key=lambda arm: abs(arm - (arm_count - 1) // 2))
    if arm_count > 1:
        return [(arm, first) for arm in islice(cycle(order), search.at_once)]
    return [(0, n) for n in islice(cycle(multiples), search.at_once)]


def estimate(search: Bayes, n_limit: int, history: History, coordinates: Coordinates) -> Estimate:
    """Estimate the EMC of the best arm: for a perfect fit, and at each error in ``search.eps``."""
    arms, arm, results, curve = _find_best_arm(search, n_limit, history, coordinates)
    by_eps = {
        format_eps(eps): _emc_interval(
            posterior(results, n_limit, eps), _EPS_LEVEL, n_limit, results, eps
        )
        for eps in sorted(search.eps or ())
    }
    fits, fails = _fitted_and_failed_n(results, None)
    bracket = Bracket(largest_fit=max(fits, default=None), smallest_fail=min(fails, default=None))
    fit = _emc_interval(curve, search.quantile, n_limit, results, None)
    best_chance = None if arms is None else arms.best_chance
    return make_estimate(
        search, history, curve, fit, bracket, by_eps=by_eps, arm=arm, best_chance=best_chance
    )


def estimate_at_training_error(eps: float, n_limit: int, history: History) -> EmcInterval | None:
    """Estimate the EMC at training error ``eps`` from the probes of a search with any policy.

    This EMC is the n at which half of the training runs end with at most ``eps * n`` missed
    samples, as for ``search.eps`` of the Bayesian policy. The probes were not chosen for this
    estimand, so the interval may be wide.

    Args:
        eps: training error, in (0, 1).
        n_limit: largest available n (samples).
        history: finished probes, in any order.

    Returns:
        The EMC and its interval; None without accepted probes.
    """
    if not accepted_probes(history):
        return None
    return _emc_interval(posterior(history, n_limit, eps), _EPS_LEVEL, n_limit, history, eps)


def _unprobed_end(history: History, n_limit: int, eps: float | None) -> int | None:
    """Return an n that must be probed before the search is allowed to end; None if there is none.

    A narrow interval of a search whose probes all fitted, or all failed, is a bound. If no probe
    failed, a fit at ``n_limit`` is required; if no probe fitted, a failure at n = 1.
    """
    fits, fails = _fitted_and_failed_n(history, eps)
    if not fails:
        return None if n_limit in fits else n_limit
    if not fits:
        return None if 1 in fails else 1
    return None


def _emc_interval(
    curve: FitCurve, q: float, n_limit: int, history: History, eps: float | None
) -> EmcInterval:
    ends = curve.quantiles(curve.n_at_fit_probability(q))
    fits, fails = _fitted_and_failed_n(history, eps)
    return EmcInterval.from_quantiles(ends, fits, n_limit, any_failed=bool(fails))


def _fitted_and_failed_n(history: History, eps: float | None) -> tuple[list[int], list[int]]:
    """Return the n of accepted probes that fitted, and the n of accepted probes that failed.

    If ``eps`` is set, probes with at most this training error count as fits.
    """
    results = accepted_probes(history)
    return [r.n for r in results if r.fits_at(eps)], [r.n for r in results if not r.fits_at(eps)]


def probe_bound(search: Bayes, n_limit: int, *, can_reject: bool) -> list[tuple[int, float]]:
    """Return an infinite bound, because only ``max_cost`` limits the number of probes."""
    return [(n_limit, math.inf)]


POLICY = Policy(propose=propose, estimate=estimate, probe_bound=probe_bound)
