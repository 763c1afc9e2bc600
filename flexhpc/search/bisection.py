"""Bisection policy: double n until a failure, then bisect in log n."""

from __future__ import annotations

import math

from flexhpc.config.sections.search import Bisection, format_eps
from flexhpc.search.arms import Coordinates
from flexhpc.search.fit_curve import FitCurve, posterior
from flexhpc.search.history import (
    Bracket,
    EmcInterval,
    EndedBy,
    Estimate,
    History,
    accepted_probes,
    group_by_n,
)
from flexhpc.search.next_n import (
    FitDecision,
    SearchState,
    ascending_n_values,
    majority_decision,
    max_probes_per_n,
    replay_bisection,
)
from flexhpc.search.policy import Policy, Proposal, make_estimate


def propose(
    search: Bisection, n_limit: int, history: History, _: Coordinates
) -> Proposal | EndedBy:
    """Return the next probe as a list with one pair (arm, n), or why the search has ended."""
    states = _replay_bisections(search, n_limit, history)
    if states[-1].next_n is not None:
        return [(0, states[-1].next_n)]
    return "tolerance" if states[0].bracket.censored == "none" else "data"


def estimate(search: Bisection, n_limit: int, history: History, _: Coordinates) -> Estimate | None:
    """Estimate the EMC for a perfect fit and for each training error in ``search.eps``.

    Return None if no n has enough probes for a decision yet.
    """
    first, *others = _replay_bisections(search, n_limit, history)
    if first.bracket == Bracket():
        return None
    curve = posterior(history, n_limit)
    fit = _emc_interval(curve, search.quantile, first.bracket, n_limit)
    by_eps = {}
    for eps, state in zip(sorted(search.eps or ()), others, strict=False):
        if state.bracket != Bracket():
            at_eps = posterior(history, n_limit, eps)
            by_eps[format_eps(eps)] = _emc_interval(at_eps, 0.5, state.bracket, n_limit)
    return make_estimate(search, history, curve, fit, first.bracket, by_eps=by_eps)


def probe_bound(search: Bisection, n_limit: int, *, can_reject: bool) -> list[tuple[int, float]]:
    """Return an upper bound on the probes of a search, as pairs (n, number of probes)."""
    larger = ascending_n_values(search.start, 2.0, n_limit)
    smaller = ascending_n_values(1, 2.0, min(search.start, n_limit))
    ratio = min(2.0, n_limit)
    narrowing = math.ceil(math.log2(max(1.0, math.log(ratio) / math.log1p(search.tolerance))))
    doubled = [*larger, *smaller]
    bisections = 1 + len(search.eps or ())
    ns = doubled + [n_limit] * ((narrowing + 2) * bisections + (bisections - 1) * len(doubled))
    count = max_probes_per_n(search, can_reject)
    return [(n, count) for n in ns]


def _replay_bisections(search: Bisection, n_limit: int, history: History) -> list[SearchState]:
    """Return the states of the bisections for a perfect fit, then for each eps in ascending order.

    All bisections use the same probes. Each starts at the largest n that fitted in the previous
    bisection; the first one starts at ``search.start``. The list ends with the first bisection that
    needs another probe.
    """
    decisions = [majority_decision(history, search.seeds_per_n)]
    decisions += [
        _training_error_decision(eps, history, search.seeds_per_n)
        for eps in sorted(search.eps or ())
    ]
    start = search.start
    states = []
    for decide in decisions:
        state = replay_bisection(decide, start=start, tolerance=search.tolerance, n_limit=n_limit)
        states.append(state)
        if state.next_n is not None:
            break
        start = state.bracket.largest_fit or 1
    return states


def _training_error_decision(eps: float, history: History, seeds_per_n: int) -> FitDecision:
    """Return a function that decides whether the mean training error at n is at most ``eps``.

    This rule follows definition 1 (EMC) of Nakkiran et al. 2019 (arXiv 1912.02292). The mean is
    over all accepted probes at n. The returned function returns None if at most
    ``seeds_per_n`` / 2 probes at n are accepted.
    """
    groups, needed = group_by_n(accepted_probes(history)), seeds_per_n // 2 + 1

    def decide(n: int) -> bool | None:
        results = groups.get(n, [])
        if len(results) < needed:
            return None
        return sum(result.n_errors for result in results) / (n * len(results)) <= eps

    return decide


def _emc_interval(curve: FitCurve, q: float, bracket: Bracket, n_limit: int) -> EmcInterval:
    """Return the EMC, the n at which P(fit) = q, and its interval.

    For q = 0.5, the EMC is the geometric mean of both ends of the bracket, unless it is censored.
    At a training error ``eps``, the bracket is computed from the mean training error at each n, and
    the interval from the median training error. Mean and median agree if the training errors at one
    n vary little.
    """
    low, high = bracket.largest_fit, bracket.smallest_fail
    lower, middle, upper = curve.quantiles(curve.n_at_fit_probability(q))
    if low is None:
        emc = 0
    elif high is None:  # a majority of fits at `low` does not show that 90 % fit there
        emc = low if q <= 0.5 else min(low, max(1, math.floor(lower)))
    elif q == 0.5:
        emc = math.isqrt(low * high)
    else:
        emc = min(max(1, round(middle)), n_limit)
    return EmcInterval.from_ends(emc, lower, upper, bracket.censored)


POLICY = Policy(propose=propose, estimate=estimate, probe_bound=probe_bound)
