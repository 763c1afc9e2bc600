"""Common interface of all search policies, which map a history to the next probes or an estimate.

This module contains only pure functions and does not import torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Literal

from flexhpc.config.sections.search import Bayes, Search
from flexhpc.config.sections.training import Doubling
from flexhpc.config.variants import load_implementation
from flexhpc.search.arms import SINGLE_ARM, Coordinates
from flexhpc.search.budget_curve import budget_curve
from flexhpc.search.design import CostModel
from flexhpc.search.fit_curve import FitCurve, estimand_level
from flexhpc.search.history import (
    LEVEL,
    Bracket,
    EmcInterval,
    EndedBy,
    Estimate,
    History,
    Probe,
    Quantiles,
    accepted_probes,
)
from flexhpc.search.stages import results_at_stage

_ARMS_FACTOR = 2.0
"""Factor by which ``max_cost`` is multiplied if keys are tuned."""
Proposal = list[tuple[int, int]]
"""Pairs (arm, n) of the next probes."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The pure functions that implement a search policy.

    The attribute ``import_path`` of a ``search`` section selects its policy.

    Attributes:
        propose: ``(section, n_limit, history, coordinates)`` -> the next probes, or the reason why
            the search has ended.
        estimate: ``(section, n_limit, history, coordinates)`` -> the current estimate, created with
            :func:`make_estimate`, or None if the history is not sufficient.
        probe_bound: ``(section, n_limit, *, can_reject)`` -> pairs (n, number of probes), whose
            total cost is an upper bound on the cost of a search. ``max_cost`` is ignored; the
            number of probes is inf if no other setting limits it. ``can_reject`` says whether a
            convergence gate can reject probes.
    """

    propose: Callable[[Any, int, History, Coordinates], Proposal | EndedBy]
    estimate: Callable[[Any, int, History, Coordinates], Estimate | None]
    probe_bound: Callable[..., Iterable[tuple[int, float]]]


def load_policy(search: Search) -> Policy:
    """Import the policy that a ``search`` section selects."""
    policy: Policy = load_implementation(search)
    return policy


def probes_per_round(search: Search) -> int:
    """Return the number of probes that a search proposes per round (1 by default)."""
    return int(getattr(search, "at_once", 1))


def cost_cap(search: Search, arms: int, targets: int | None = None) -> float:
    """Return the maximum cost of a point in whole training runs; infinity means no maximum.

    Args:
        search: policy and its settings.
        arms: number of arms.
        targets: number of training errors at which EMC is estimated. By default, this is the number
            of values of ``eps`` plus one for a perfect fit.
    """
    if search.max_cost is None:
        return math.inf
    if targets is None:
        targets = 1 + len(getattr(search, "eps", None) or ())
    return search.max_cost * targets * (_ARMS_FACTOR if arms > 1 else 1.0)


def next_probes(
    search: Search, n_limit: int, history: History, coordinates: Coordinates = SINGLE_ARM,
    doubling_settings: Doubling | None = None,
) -> list[Probe] | Estimate:  # fmt: skip
    """Return the next probes, or the final estimate if the search has ended.

    The probes can run in parallel. A search proposes ``at_once`` probes per round (1 by default),
    based only on the completed rounds. The proposal therefore does not depend on which probe of a
    round ends first, and after an interruption only the missing probes run.

    Args:
        search: policy and its settings.
        n_limit: largest available n (samples).
        history: all finished probes; with ``at_once`` > 1, in the order in which they ended.
        coordinates: coordinates of the arms; by default a single arm, because no keys are tuned.
        doubling_settings: when to stop doubling the budget; None if the budget is not doubled.
    """
    size = probes_per_round(search)
    completed = len(history) // size * size
    rounds = sorted(history[:completed], key=lambda r: (r.n, r.repeat, r.arm, r.stage))
    stage = max((result.stage for result in rounds), default=0)
    while True:
        results = results_at_stage(rounds, stage)
        proposal = _propose_or_double(
            search, n_limit, results, coordinates, doubling_settings, stage
        )
        if proposal != "doubling":
            break
        stage += 1
    if isinstance(proposal, str):
        estimate = estimate_so_far(search, n_limit, history, coordinates, proposal, stage)
        assert estimate is not None, "a search that has ended has an estimate"
        return estimate
    done = {Probe(r.n, r.repeat, r.arm, r.stage) for r in history[completed:]}
    return [p for p in _assign_repeats(proposal, results, stage) if p not in done]


def _propose_or_double(
    search: Search, n_limit: int, history: History, coordinates: Coordinates,
    doubling_settings: Doubling | None, stage: int,
) -> Proposal | EndedBy | Literal["doubling"]:  # fmt: skip
    """Return the next probes of a stage, the reason why the search has ended, or ``"doubling"``.

    ``"doubling"`` means that the stage has ended and the search continues with twice the budget.
    """
    if doubling_settings is None:
        return _propose_at_stage(search, n_limit, history, coordinates)
    assert isinstance(search, Bayes), "checked with the spec"
    last = stage >= doubling_settings.max_doublings
    proposal = _propose_at_stage(
        search if last else search.with_coarse_tolerance(), n_limit, history, coordinates
    )
    if isinstance(proposal, list):
        return proposal
    if proposal == "data" and not any(result.fit for result in history):
        return proposal if last else "doubling"
    saturated = may_be_saturated = False  # the gain is not known before the second doubling
    if stage > 1:
        estimate = load_policy(search).estimate(search, n_limit, history, coordinates)
        arm = 0 if estimate is None else estimate.arm
        results = [result for result in history if result.arm == arm]
        low, _, high = gain_of_last_doublings(results, n_limit, search)
        saturated = high <= doubling_settings.saturation
        may_be_saturated = low <= doubling_settings.saturation
    if not last and (proposal == "data" or (proposal == "tolerance" and may_be_saturated)):
        proposal = _propose_at_stage(search, n_limit, history, coordinates)
        if isinstance(proposal, list):
            return proposal
    if proposal == "data":
        return proposal
    if not saturated and not last:
        return "doubling"  # also at max_cost, whose unit is then a training run of twice the budget
    if proposal == "max_cost":
        return proposal
    return "saturation" if saturated else "max_budget"


def gain_of_last_doublings(history: History, n_limit: int, search: Search) -> Quantiles:
    """Return the larger of the factors by which the last two budget doublings raised the EMC.

    A single doubling without a gain does not prove saturation: some training runs miss a few
    samples for a long time before they fit, so the EMC can remain constant during one doubling.

    Returns:
        Lower end, median and upper end of an interval; each is the larger one of the two intervals.
        All are inf if the factors are unknown.
    """
    curve = budget_curve(history, n_limit)
    if curve is None:
        return math.inf, math.inf, math.inf
    level = estimand_level(search.estimand)
    gains = curve.gain(level, 0.5, 1.0), curve.gain(level, 0.25, 0.5)
    low, middle, high = (max(ends) for ends in zip(*gains, strict=True))
    return low, middle, high


def _propose_at_stage(
    search: Search, n_limit: int, history: History, coordinates: Coordinates
) -> Proposal | EndedBy:
    """Return the next probes at the current budget, or the reason why the stage has ended."""
    proposal = load_policy(search).propose(search, n_limit, history, coordinates)
    spent = CostModel.from_history(history).cost_in_whole_runs(history)
    if isinstance(proposal, str) or spent < cost_cap(search, len(coordinates)):
        return proposal
    estimate = load_policy(search).estimate(search, n_limit, history, coordinates)
    return proposal if estimate is None else "max_cost"


def _assign_repeats(proposal: Proposal, history: History, stage: int) -> Iterator[Probe]:
    """Yield each proposed probe with the smallest ``repeat`` not yet used at its n, arm and stage.

    The number of finished probes cannot serve as ``repeat``, because the values of ``repeat`` have
    gaps if ``at_once`` was changed in the middle of a round.
    """
    known = {(result.n, result.repeat, result.arm) for result in history if not result.unfinished}
    for arm, n in proposal:
        repeat = next(i for i in count() if (n, i, arm) not in known)
        known.add((n, repeat, arm))
        yield Probe(n, repeat, arm, stage)


def estimate_so_far(
    search: Search, n_limit: int, history: History, coordinates: Coordinates = SINGLE_ARM,
    ended_by: EndedBy | None = None, stage: int | None = None,
) -> Estimate | None:  # fmt: skip
    """Return the current estimate of a running search, or the final estimate of an ended search.

    Return None if the history is not sufficient for an estimate, for example if a running search
    has no accepted probe. Exception: if an ended search has only rejected probes, they count as
    failures, so that there is an estimate.

    Args:
        search, n_limit, history, coordinates: as in :func:`next_probes`.
        ended_by: why the search ended; None while it is running.
        stage: number of times that the budget was doubled; by default the largest ``stage`` in the
            history.
    """
    if stage is None:
        stage = max((result.stage for result in history), default=0)
    history = results_at_stage(history, stage)
    if not accepted_probes(history):
        if ended_by is None or not history:
            return None
        history = [replace(result, rejected=False) for result in history]
    estimate = load_policy(search).estimate(search, n_limit, history, coordinates)
    if estimate is None:
        return None
    if ended_by is None:
        return replace(estimate, stage=stage)
    doubling = gain = None
    if estimate.censored == "none":
        results = [r for r in history if r.arm == estimate.arm]
        if (curve := budget_curve(results, n_limit)) is not None:
            doubling = curve.gain(estimand_level(search.estimand), 1.0, 2.0)
            gain = gain_of_last_doublings(results, n_limit, search) if stage > 1 else None
    return replace(estimate, ended_by=ended_by, doubling=doubling, gain=gain, stage=stage)


def make_estimate(
    search: Search, history: History, curve: FitCurve, fit: EmcInterval, bracket: Bracket, *,
    by_eps: Mapping[str, EmcInterval] | None = None, arm: int = 0, best_chance: float | None = None,
) -> Estimate:  # fmt: skip
    """Create an estimate from the EMC and the fit curve that a policy computed.

    Args:
        search: policy and its settings, including the estimand.
        history: results of the training runs of all arms.
        curve: posterior of the best arm's fit curve.
        fit: EMC at training error 0 (all samples are fitted), with its interval.
        bracket, by_eps, arm, best_chance: see :class:`Estimate`.
    """
    finished = [result for result in history if not result.unfinished]
    return Estimate(
        emc=fit.emc, emc_lo=fit.emc_lo, emc_hi=fit.emc_hi, level=LEVEL, estimand=search.estimand,
        censored=fit.censored, largest_fit=bracket.largest_fit, smallest_fail=bracket.smallest_fail,
        probes=len(history), cost=sum(result.cost for result in history),
        unconverged=sum(result.verdict == "unconverged" for result in finished),
        rejected=len(finished) - len(accepted_probes(finished)),
        width=curve.quantiles(curve.width), lapse=curve.quantiles(curve.lapse),
        by_eps=by_eps or {}, arm=arm, best_chance=best_chance,
        tolerance=getattr(search, "tolerance", None), max_cost=search.max_cost,
    )  # fmt: skip


def is_precise(
    search: Search, n_limit: int, read_history: Callable[[], History], coordinates: Coordinates,
    estimate: Estimate, doubling_settings: Doubling | None = None,
) -> bool:  # fmt: skip
    """Return whether a final estimate is as precise as the ``search`` section requires.

    The result is False if the budget must be doubled further. Otherwise, it is True in two cases:

    - The tolerance of the estimate is at most the tolerance of ``search``, and the estimate was not
      made because a ``max_cost`` smaller than that of ``search`` was reached.
    - If the search were continued with these settings, it would end without another probe.

    Args:
        search: policy and its settings.
        n_limit: largest available n (samples).
        read_history: returns the probes from which the estimate was made; it is called only if the
            settings do not decide.
        coordinates: coordinates of the arms.
        estimate: final estimate.
        doubling_settings: see :func:`next_probes`.
    """
    if doubling_settings is not None:
        saturated = estimate.gain is not None and estimate.gain[2] <= doubling_settings.saturation
        at_max_budget = estimate.stage >= doubling_settings.max_doublings
        if not saturated and not at_max_budget and estimate.censored != "right":
            return False
    tolerance: float | None = getattr(search, "tolerance", None)
    if tolerance is None or (estimate.tolerance is not None and estimate.tolerance <= tolerance):
        cap, previous_cap = search.max_cost, estimate.max_cost
        if estimate.ended_by != "max_cost" or cap == previous_cap:
            return True
        if cap is not None and previous_cap is not None and cap <= previous_cap:
            return True
    return isinstance(
        next_probes(search, n_limit, read_history(), coordinates, doubling_settings), Estimate
    )
