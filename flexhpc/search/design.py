"""Bayesian experimental design: choose the probes with the most information per cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy

from flexhpc.search.arms import ArmPosteriors
from flexhpc.search.fit_curve import FitCurve
from flexhpc.search.history import Floats, History

_CELLS, _BINS = 240, 16
"""Number of posterior draws, and number of groups of draws, if there is only one arm."""
_BINS_PER_ARM = 6
"""Number of groups of draws for each arm, if there are several arms."""
_CANDIDATES = 32
_FIT_FRACTION, _FAIL_FRACTION = 0.35, 1.0
"""Prior guess of the fraction of its budget that a probe uses: if it fits, and if it fails."""
_MIN_SHARE = 0.05
"""Smallest expected cost of continuing a training run, as a fraction of a whole training run."""
_PRIOR_WEIGHT = 3
"""Number of observed probes that together have the same weight as a prior guess."""


@dataclass(frozen=True, kw_only=True)
class CostModel:
    """Expected cost of a probe at any n, estimated from the history.

    Attributes:
        fit_share: expected fraction of the budget that a fitting probe uses.
        fail_share: expected fraction of the budget that a failing probe uses.
        growth: exponent; the cost of a full budget is proportional to n**growth. It is about 1 for
            a budget in epochs, and about 0 for a budget in updates with a fixed batch size.
        log_cost: log of the sample passes of a full budget at n = 1; None before any cost is known.
    """

    fit_share: float
    fail_share: float
    growth: float
    log_cost: float | None

    @classmethod
    def from_history(cls, history: History) -> CostModel:
        """Estimate the cost model from finished probes.

        If training has no budget, every failing probe counts as a whole training run.
        """
        known = [r for r in history if r.share and r.cost > 0 and not r.unfinished]

        def mean_share(prior_guess: float, *, fit: bool) -> float:
            shares = [r.share for r in known if r.fit == fit and r.share is not None]
            return (prior_guess * _PRIOR_WEIGHT + sum(shares)) / (_PRIOR_WEIGHT + len(shares))

        fit_share = mean_share(_FIT_FRACTION, fit=True)
        fail_share = mean_share(_FAIL_FRACTION, fit=False)
        full_runs = known or [r for r in history if not r.fit and r.cost > 0]
        n = np.log([r.n for r in full_runs])
        full = np.log([r.cost / (r.share or 1) for r in full_runs])
        growth = 1.0
        if len(n) and np.ptp(n) > math.log(1.5):
            growth = float(np.clip(np.polyfit(n, full, 1)[0], 0, 1))
        log_cost = float(np.mean(full - growth * n)) if len(n) else None
        return cls(fit_share=fit_share, fail_share=fail_share, growth=growth, log_cost=log_cost)

    def expected_cost(self, n: Floats, chance: Floats, used: Floats) -> Floats:
        """Return the expected relative cost of probes at ``n`` with P(fit) = ``chance``.

        The unit is arbitrary, because only ratios of these costs are used.

        Args:
            n: number of samples of each probe.
            chance: P(fit) of each probe.
            used: fraction of the budget that the training run of each probe has used already; 0 for
                new training runs.
        """
        share = np.maximum(self.fit_share, used) * chance + self.fail_share * (1 - chance)
        remaining = np.where(used > 0, np.maximum(share - used, _MIN_SHARE), share)
        return np.asarray(n**self.growth * remaining)

    def cost_in_whole_runs(self, history: History) -> float:
        """Return the cost of all probes, in units of whole training runs.

        A probe costs the fraction of its budget that it used. If training has no budget, a probe
        costs its sample passes divided by the expected sample passes of a whole training run at
        the same n, but at most 1.
        """
        used = 0.0
        for result in history:
            if result.share is not None:
                used += result.share
            elif self.log_cost is None:
                used += 1.0
            else:
                full = math.exp(self.log_cost + self.growth * math.log(result.n))
                used += min(1.0, result.cost / full)
        return round(used, 6)  # rounding errors must not start one more training


@dataclass(frozen=True, kw_only=True)
class GroupedDraws:
    """Equally weighted posterior draws, sorted and grouped by the target quantity.

    The target quantity is the EMC or, with several arms, the best arm and its EMC.

    Attributes:
        curves: index of an arm -> the fit curve of this arm in every draw.
        starts: index of the first draw of each group, shape (groups,).
    """

    curves: Mapping[int, FitCurve]
    starts: NDArray[np.intp]

    @classmethod
    def from_curve(cls, arm: int, curve: FitCurve, q: float) -> GroupedDraws:
        """Group draws of one arm by the n at which P(fit) = q, in groups of equal size."""
        resampled = curve.resample(_CELLS, curve.n_at_fit_probability(q))
        return cls(curves={arm: resampled}, starts=np.arange(0, _CELLS, _CELLS // _BINS))

    @classmethod
    def from_arms(cls, arms: ArmPosteriors) -> GroupedDraws:
        """Group the joint draws of all arms by their best arm and by quantiles of its EMC."""
        best, top = arms.log_emc.argmax(axis=1), arms.log_emc.max(axis=1)
        ends = np.quantile(top, np.linspace(0, 1, _BINS_PER_ARM + 1)[1:-1])
        group = best * _BINS_PER_ARM + np.searchsorted(ends, top)
        order = np.argsort(group, kind="stable")
        starts = np.flatnonzero(np.diff(group[order], prepend=-1))
        curves = [curve.select_cells(order) for curve in arms.pooled_curves]
        return cls(curves=dict(enumerate(curves)), starts=starts)


def choose_probes(
    draws: GroupedDraws, costs: CostModel, lowest: Mapping[int, int], n_limit: int,
    history: History, *, count: int, required: Sequence[tuple[int, int]],
) -> list[tuple[int, int]]:  # fmt: skip
    """Return the next probes, which can run in parallel, as pairs (arm, n).

    The selection is greedy: each probe maximises the information per expected cost. The information
    is the mutual information between the probe's verdict and the target quantity, conditional on
    the verdicts of the probes already chosen.

    Args:
        draws: posterior draws, grouped by the target quantity (see :class:`GroupedDraws`).
        costs: model of the expected cost of each probe.
        lowest: index of an arm -> its smallest allowed n (samples).
        n_limit: largest available n (samples).
        history: finished probes; their unfinished training runs can be continued.
        count: number of probes to return.
        required: (arm, n) of at most ``count`` probes that must be chosen; they come first.
    """
    arms, ns, chances, used = [], [], [], []
    for arm, curve in draws.curves.items():
        started = {r.n: r.share or 0.0 for r in history if r.unfinished and r.arm == arm}
        low = float(np.quantile(curve.threshold - 2 * curve.width, 0.05))
        high = float(np.quantile(curve.threshold + 2 * curve.width, 0.95))
        log_spaced = np.exp(np.linspace(low, min(high, math.log(4.0 * n_limit)), _CANDIDATES))
        allowed = np.clip(np.round(log_spaced), lowest[arm], n_limit)
        candidates = np.unique([*allowed, *started]).astype(np.float64)
        used += [started.get(n, 0.0) for n in candidates]
        arms += [arm] * len(candidates)
        ns.append(candidates)
        chances.append(curve.fit_probability(candidates))
    n, chance = np.concatenate(ns), np.concatenate(chances, axis=1)
    cost = costs.expected_cost(n, chance.mean(axis=0), np.array(used))
    chosen = list(required)
    outcomes = np.ones((len(chance), 1))
    for arm, chosen_n in chosen:
        p = draws.curves[arm].fit_probability(np.array([chosen_n], dtype=np.float64))
        outcomes = _extend_outcomes(outcomes, p)[..., 0]
    while len(chosen) < count:
        joint = _extend_outcomes(outcomes, chance)
        gain = _mutual_information(joint, draws.starts)
        gain -= _mutual_information(outcomes, draws.starts)
        best = int(np.argmax(gain / cost))
        if used[best]:  # a training run can be continued only once
            cost[best] = costs.expected_cost(n[best], chance[:, best].mean(), np.zeros(()))
        chosen.append((arms[best], int(n[best])))
        outcomes = joint[..., best]
    return chosen


def _extend_outcomes(outcomes: Floats, chance: Floats) -> Floats:
    """Extend the joint distribution of the verdicts of the chosen probes by one more probe.

    Args:
        outcomes: probability of each combination of verdicts, shape (draws, m).
        chance: P(fit) of each candidate for the additional probe, shape (draws, candidates).

    Returns:
        Probability of each extended combination of verdicts, shape (draws, 2 m, candidates).
    """
    fits, fails = (outcomes[:, :, None] * p[:, None, :] for p in (chance, 1 - chance))
    return np.concatenate((fits, fails), axis=1)


def _mutual_information(outcomes: Floats, starts: NDArray[np.intp]) -> Floats:
    """Return the mutual information (nats) between the verdicts and the group of the draws.

    Args:
        outcomes: probability of each combination of verdicts, shape (draws, m, ...).
        starts: index of the first draw of each group.

    Returns:
        Mutual information, shape (...).
    """
    sizes = np.diff(starts, append=len(outcomes))
    weight = sizes / len(outcomes)
    shape = (-1, *[1] * (outcomes.ndim - 1))
    conditional = np.add.reduceat(outcomes, starts, axis=0) / sizes.reshape(shape)
    within = (_entropy(conditional.swapaxes(0, 1)) * weight.reshape(shape[:-1])).sum(axis=0)
    return np.asarray(_entropy(outcomes.mean(axis=0)) - within)


def _entropy(probabilities: Floats) -> Floats:
    """Return the entropy (nats) of probabilities that sum to 1 along the first axis."""
    return np.asarray(-xlogy(probabilities, probabilities).sum(axis=0))
