"""Common interface of all search policies: history -> next probes or estimate.

Pure functions; does not import torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from flexhpc.config.sections.search import Search
from flexhpc.config.variants import load_implementation
from flexhpc.search.arms import SINGLE_ARM, Coordinates
from flexhpc.search.budget_curve import budget_curve
from flexhpc.search.design import CostModel
from flexhpc.search.fit_curve import FitCurve, estimand_level
from flexhpc.search.history import (
    LEVEL,
    TAILS,
    Bracket,
    EmcInterval,
    EndedBy,
    Estimate,
    History,
    Probe,
    accepted_probes,
)

_ARMS_FACTOR = 2.0
"""Factor by which ``max_cost`` is multiplied if keys are tuned."""
Proposal = list[tuple[int, int]]
"""(arm, n) of the next probes."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A search policy as pure functions of the history.

    The attribute ``import_path`` of a section of the spec is the import path of a ``Policy``.

    Attributes:
        propose: (section, n_limit, history, coordinates) -> the next probes, or the reason why the
            search has ended.
        estimate: (section, n_limit, history, coordinates) -> the current estimate by
            :func:`make_estimate`, None while the history does not determine any.
        probe_bound: (section, n_limit, *, rejects, tuned) -> upper bound on the proposed probes, as
            pairs of n and number of full training runs, regardless of ``max_cost`` (inf if only
            that cap bounds it); ``rejects``: whether a convergence gate may reject probes;
            ``tuned``: whether keys are tuned.
    """

    propose: Callable[[Any, int, History, Coordinates], Proposal | EndedBy]
    estimate: Callable[[Any, int, History, Coordinates], Estimate | None]
    probe_bound: Callable[..., Iterable[tuple[int, float]]]


def policy_of(search: Search) -> Policy:
    """Import the policy that a ``search`` section selects."""
    policy: Policy = load_implementation(search)
    return policy


def at_once(search: Search) -> int:
    """Return the number of probes that a search proposes per round (1 by default)."""
    return int(getattr(search, "at_once", 1))


def cost_cap(search: Search, arms: int, targets: int | None = None) -> float:
    """Return the cap on a point's cost in whole training runs; inf if there is none.

    Args:
        search: policy and its settings.
        arms: number of arms.
        targets: number of estimated training errors, including 0; None for all of the search.
    """
    if search.max_cost is None:
        return math.inf
    if targets is None:
        targets = 1 + len(getattr(search, "eps", None) or ())
    return search.max_cost * targets * (_ARMS_FACTOR if arms > 1 else 1.0)


def advance(
    search: Search, n_limit: int, history: History, coordinates: Coordinates = SINGLE_ARM
) -> list[Probe] | Estimate:
    """Return the probes to run next, which may run in parallel, or the final estimate.

    A search with ``at_once`` proposes that many probes per round, based only on the completed
    rounds. The proposal therefore does not depend on which probe of a round ends first, and after
    an interruption only the missing probes run.

    Args:
        search: policy and its settings.
        n_limit: largest available n (samples).
        history: all finished probes; with ``at_once`` > 1, in the order in which they ended.
        coordinates: coordinates of the arms, if keys are tuned.
    """
    round_size = at_once(search)
    completed = len(history) // round_size * round_size
    rounds = sorted(history[:completed], key=lambda r: (r.n, r.repeat, r.arm))
    proposal = policy_of(search).propose(search, n_limit, rounds, coordinates)
    spent = CostModel.from_history(rounds).trainings(rounds)
    capped = spent >= cost_cap(search, len(coordinates))
    if isinstance(proposal, str) or capped:
        ended: EndedBy = proposal if isinstance(proposal, str) else "max_cost"
        estimate = estimate_so_far(search, n_limit, history, coordinates, ended)
        if estimate is not None:
            return estimate
    assert not isinstance(proposal, str), "a search that has ended has an estimate"
    done = {Probe(result.n, result.repeat, result.arm) for result in history[completed:]}
    return [p for p in _numbered(proposal, rounds) if p not in done]


def _numbered(proposal: Proposal, history: History) -> Iterator[Probe]:
    """Number each proposed probe by the first repeat that the history lacks.

    The repeats of the history have gaps if ``at_once`` was changed in the middle of a round.
    """
    known = {Probe(result.n, result.repeat, result.arm) for result in history}
    for arm, n in proposal:
        probe = next(p for p in (Probe(n, i, arm) for i in count()) if p not in known)
        known.add(probe)
        yield probe


def estimate_so_far(
    search: Search, n_limit: int, history: History, coordinates: Coordinates = SINGLE_ARM,
    ended_by: EndedBy | None = None,
) -> Estimate | None:  # fmt: skip
    """Return the current estimate of a search, finished or not; None without accepted probes.

    The interval of an unfinished search is wider, and the estimate is censored on a side without a
    bound. If a search has ended and every probe was rejected, all of them are failures.

    Args:
        search, n_limit, history, coordinates: as in :func:`advance`.
        ended_by: why the search ended; None while it is running.
    """
    if not accepted_probes(history):
        if ended_by is None or not history:
            return None
        history = [replace(result, rejected=False) for result in history]
    estimate = policy_of(search).estimate(search, n_limit, history, coordinates)
    if estimate is None or ended_by is None:
        return estimate
    doubling = None
    if estimate.censored == "none":
        curve = budget_curve([r for r in history if r.arm == estimate.arm], n_limit)
        if curve is not None:
            doubling = curve.gain(estimand_level(search.estimand), 2.0)
    return replace(estimate, ended_by=ended_by, doubling=doubling)


def make_estimate(
    search: Search, history: History, curve: FitCurve, fit: EmcInterval, bracket: Bracket, *,
    by_eps: Mapping[str, EmcInterval] | None = None, arm: int = 0, best_chance: float | None = None,
) -> Estimate:  # fmt: skip
    """Create the estimate of a policy.

    Args:
        search: section with the estimand.
        history: finished probes of all arms.
        curve: posterior of the fit curve of the best arm.
        fit: EMC for a perfect fit and its interval.
        bracket, by_eps, arm, best_chance: see :class:`Estimate`.
    """
    return Estimate(
        emc=fit.emc, emc_lo=fit.emc_lo, emc_hi=fit.emc_hi, level=LEVEL, estimand=search.estimand,
        censored=fit.censored, largest_fit=bracket.largest_fit, smallest_fail=bracket.smallest_fail,
        probes=len(history), cost=sum(result.cost for result in history),
        unconverged=sum(result.verdict == "unconverged" for result in history),
        rejected=len(history) - len(accepted_probes(history)),
        width=curve.quantiles(curve.width, TAILS), lapse=curve.quantiles(curve.lapse, TAILS),
        by_eps=by_eps or {}, arm=arm, best_chance=best_chance, tolerance=_tolerance(search),
        max_cost=search.max_cost,
    )  # fmt: skip


def _tolerance(search: Search) -> float | None:
    tolerance: float | None = getattr(search, "tolerance", None)
    return tolerance


def is_precise(
    search: Search, n_limit: int, history: History, coordinates: Coordinates, estimate: Estimate
) -> bool:
    """Return whether a final estimate is as precise as a search requests.

    True if the estimate was made with at most this tolerance and at least this cap, or if the
    search would end with the same probes.

    Args:
        search: policy and its settings.
        n_limit: largest available n (samples).
        history: the probes that the estimate is made from.
        coordinates: coordinates of the arms.
        estimate: final estimate from these probes.
    """
    tolerance = _tolerance(search)
    if tolerance is None or (estimate.tolerance is not None and estimate.tolerance <= tolerance):
        cap, previous_cap = search.max_cost, estimate.max_cost
        if estimate.ended_by != "max_cost" or cap == previous_cap:
            return True
        if cap is not None and previous_cap is not None and cap <= previous_cap:
            return True
    return isinstance(advance(search, n_limit, history, coordinates), Estimate)
