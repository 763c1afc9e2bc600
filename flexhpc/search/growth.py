"""Growth policy: raise n until the first failure, as in arXiv 2406.11463.

The state of the search is not stored; it is computed from the history.
"""

from __future__ import annotations

import numpy as np
from scipy.special import bdtrc

from flexhpc.config.sections.search import Growth
from flexhpc.search.arms import Coordinates
from flexhpc.search.fit_curve import FitCurve, posterior
from flexhpc.search.history import TAILS, Bracket, EmcInterval, EndedBy, Estimate, History
from flexhpc.search.next_n import (
    SearchState,
    ascending_n_values,
    majority_decision,
    max_probes_per_n,
    replay_growth,
)
from flexhpc.search.policy import Policy, Proposal, make_estimate

_CURVES = 200


def _replay_search(search: Growth, n_limit: int, history: History) -> SearchState:
    return replay_growth(
        majority_decision(history, search.seeds_per_n), _ns_to_try(search, n_limit)
    )


def _ns_to_try(search: Growth, n_limit: int) -> list[int]:
    return ascending_n_values(search.start, search.growth, n_limit, search.step)


def propose(search: Growth, n_limit: int, history: History, _: Coordinates) -> Proposal | EndedBy:
    """Return the next probe as a list with one pair (arm, n), or why the search has ended."""
    state = _replay_search(search, n_limit, history)
    if state.next_n is not None:
        return [(0, state.next_n)]
    return "failure" if state.bracket.censored == "none" else "data"


def estimate(search: Growth, n_limit: int, history: History, _: Coordinates) -> Estimate | None:
    """Estimate the EMC: the last n before the first failure.

    Return None if no n has enough probes for a decision yet.
    """
    bracket = _replay_search(search, n_limit, history).bracket
    if bracket == Bracket():
        return None
    curve = posterior(history, n_limit)
    lower, upper = _prediction_interval(curve, search, n_limit)
    fit = EmcInterval.from_ends(bracket.largest_fit or 0, lower, upper, bracket.censored)
    return make_estimate(search, history, curve, fit, bracket)


def probe_bound(search: Growth, n_limit: int, *, can_reject: bool) -> list[tuple[int, float]]:
    """Return an upper bound on the probes of a search, as pairs (n, number of probes)."""
    count = max_probes_per_n(search, can_reject)
    return [(n, count) for n in _ns_to_try(search, n_limit)]


def _prediction_interval(curve: FitCurve, search: Growth, n_limit: int) -> tuple[float, float]:
    """Return a prediction interval (samples) for the EMC that a repeated search would find.

    The EMC of this policy, the last n before the first failure, is random. For a known fit curve,
    its distribution is P(EMC = n_i) = p_1 ... p_i (1 - p_(i+1)), where p_i is the probability that
    most probes at n_i fit. This distribution is averaged over the posterior of the fit curve.

    Args:
        curve: posterior of the fit curve.
        search: settings of the growth policy.
        n_limit: largest available n (samples).
    """
    ns = np.array(_ns_to_try(search, n_limit), dtype=np.float64)
    needed = search.seeds_per_n // 2 + 1
    total = np.zeros(len(ns) + 1)
    for chance in curve.resample(_CURVES).fit_probability(ns):
        passes = bdtrc(needed - 1, 2 * needed - 1, chance)
        survival = np.concatenate(([1.0], np.cumprod(passes)))
        total += survival - np.append(survival[1:], 0.0)
    below = np.cumsum(total) / total.sum()
    ends = np.concatenate(([0.0], ns))
    lower, _, upper = (float(ends[np.searchsorted(below, level)]) for level in TAILS)
    return lower, upper


POLICY = Policy(propose=propose, estimate=estimate, probe_bound=probe_bound)
