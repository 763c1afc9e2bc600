"""EMC as a function of the budget, estimated from the times at which training runs fitted.

Each posterior draw consists of a growth law (:mod:`flexhpc.search.times`) and a fit curve. First,
growth laws and fit curves are drawn jointly from the posterior given the full likelihood of the
times, and sorted by the threshold of the curve. Then the curves are replaced, in the same order,
with curves drawn from :func:`flexhpc.search.fit_curve.posterior` and sorted by threshold. The EMC
is estimated from this posterior, in which the influence of the times is limited.

Growth laws are not exact. Therefore the change of log EMC from one budget to another is multiplied
by a random factor in each draw. If the other budget is smaller, each draw is also weighted by the
likelihood of the verdicts that the training runs had at this budget.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from flexhpc.search.fit_curve import FitCurve, posterior
from flexhpc.search.history import (
    EmcInterval,
    History,
    ProbeResult,
    Quantiles,
    accepted_and_unfinished,
)
from flexhpc.search.times import Times, log_emc_shift

MAX_FACTOR = 2.0
"""Largest multiple of the budget for which the EMC is predicted. It is not larger, because the
intervals of predictions for four times the budget were too narrow."""
NO_OTHER_BUDGET = (
    "the EMC at other budgets can be estimated only with until: saturation, or with a fixed budget "
    "and a constant learning rate"
)
LAW_ERROR = 0.35
"""Standard deviation of log(actual / predicted). Both are changes of log EMC between two budgets; a
growth law gives the predicted change."""
_DRAWS = 960
_LAW_ERROR_FACTORS = np.exp(
    LAW_ERROR * ndtri((np.random.default_rng(0).permutation(_DRAWS) + 0.5) / _DRAWS)
)
"""For each posterior draw, the actual change of log EMC divided by the predicted change."""


@dataclass(frozen=True, kw_only=True)
class BudgetCurve:
    """Posterior draws of the fit curve at every budget.

    Attributes:
        curve: one fit curve per draw, at the budget of the search; all weights are equal.
        law: for each draw, the index of its growth law, shape (draws,).
        history: probes from which the posterior was computed.
        n_limit: largest available n (samples).
    """

    curve: FitCurve
    law: NDArray[np.intp]
    history: tuple[ProbeResult, ...]
    n_limit: int

    def fit_curve_at(self, factor: float) -> FitCurve:
        """Return, for each posterior draw, the fit curve at ``factor`` times the budget."""
        log_factor, curve = math.log(factor), self.curve
        change = log_emc_shift(log_factor)[self.law] * _LAW_ERROR_FACTORS
        moved = replace(curve, threshold=curve.threshold + change)
        if factor >= 1:
            return moved
        times = Times.from_history(self.history)
        return moved.reweight(
            times.verdict_log_likelihood(log_factor, curve.threshold, curve.width, change)
        )

    @property
    def smallest_factor(self) -> float:
        """Smallest multiple of the current budget at which the EMC can be estimated.

        This is 0 if the exact times of all fits are known. Otherwise, it is the budget of the first
        stage divided by the current budget.
        """
        if all(result.failed_after is None for result in self.history):
            return 0.0
        return 0.5 ** max(result.stage for result in self.history)

    def gain(self, q: float, before: float, after: float) -> Quantiles:
        """Return the ratio of the EMCs at two budgets: EMC(after) / EMC(before).

        Args:
            q: P(fit) that defines the EMC, such as 0.5 for ``n50``.
            before, after: multiples of the budget, in ascending order.

        Returns:
            Lower end, median and upper end of the interval of this ratio.
        """
        curves = self.fit_curve_at(before), self.fit_curve_at(after)
        n_before, n_after = (curve.n_at_fit_probability(q) for curve in curves)
        return curves[0].quantiles(n_after / n_before)

    def emc(self, q: float, factor: float) -> EmcInterval:
        """Return the EMC and its interval at ``factor`` times the budget.

        Args:
            q: P(fit) that defines the EMC, such as 0.5 for ``n50``.
            factor: multiple of the budget; if it is above 1, the result is a prediction.
        """
        curve = self.fit_curve_at(factor)
        ends = curve.quantiles(curve.n_at_fit_probability(q))
        fits = [r.n for r in self.history if r.fit and (r.time is None or r.time <= factor)]
        any_failed = len(fits) < len(self.history)
        return EmcInterval.from_quantiles(ends, fits, self.n_limit, any_failed=any_failed)


def budget_curve(history: History, n_limit: int) -> BudgetCurve | None:
    """Compute the posterior of the fit curve at all budgets; None if no time of a fit is known.

    Args:
        history: finished probes of one arm, in any order.
        n_limit: largest available n (samples).
    """
    ordered = accepted_and_unfinished(history)
    return _budget_curve(ordered, n_limit) if len(Times.from_history(ordered)) else None


@lru_cache(maxsize=1024)
def _budget_curve(history: tuple[ProbeResult, ...], n_limit: int) -> BudgetCurve:
    curve, times = posterior(history, n_limit), Times.from_history(history)
    shapes, index = np.unique(np.stack([curve.threshold, curve.width]), axis=1, return_inverse=True)
    by_law = times.log_likelihood_by_law(*shapes)
    log_weight = np.log(np.bincount(index.ravel(), curve.weight))
    log_weight -= times.bounded_log_likelihood(by_law)
    joint = log_weight[:, None] + by_law
    below = np.cumsum(np.exp(joint - joint.max()))
    drawn = np.searchsorted(below, (np.arange(_DRAWS) + 0.5) / _DRAWS * below[-1])
    law = np.minimum(drawn, joint.size - 1) % joint.shape[1]
    return BudgetCurve(
        curve=curve.resample(_DRAWS, curve.threshold), law=law, history=history, n_limit=n_limit
    )
