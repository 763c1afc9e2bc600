"""EMC as a function of the budget, estimated from the times at which training runs fitted.

Each posterior draw consists of a growth law (:mod:`flexhpc.search.times`) and a fit curve. First,
growth laws and fit curves are drawn jointly from the posterior given the full likelihood of the
times, and sorted by the threshold of the curve. Then the curves are replaced, in the same order,
with curves drawn from :func:`flexhpc.search.fit_curve.posterior` and sorted by threshold. The EMC
is estimated from this posterior, in which the influence of the times is limited.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from flexhpc.search.evidence import Floats
from flexhpc.search.fit_curve import FitCurve, posterior
from flexhpc.search.history import (
    TAILS,
    EmcInterval,
    History,
    ProbeResult,
    Quantiles,
    evidence_of,
)
from flexhpc.search.times import Times, shift

MAX_FACTOR = 2.0
"""Largest multiple of the budget for which the EMC is predicted. It is not larger, because the
intervals of predictions for four times the budget were too narrow."""
NO_OTHER_BUDGET = (
    "the EMC at other budgets can be estimated only with until: saturation, or with a fixed budget "
    "and a constant learning rate"
)
_DRAWS = 960


@dataclass(frozen=True, kw_only=True)
class BudgetCurve:
    """Posterior of the fit curve at every budget, as equally weighted draws.

    Attributes:
        curve: fit curves at the budget of the search.
        law: index of the growth law of each draw, shape (draws,).
        history: probes from which the posterior was computed.
        n_limit: largest available n (samples).
    """

    curve: FitCurve
    law: NDArray[np.intp]
    history: tuple[ProbeResult, ...]
    n_limit: int

    def level_set(self, q: float, factor: float) -> Floats:
        """Return the n at which P(fit) = q with ``factor`` times the budget, shape (draws,)."""
        return np.asarray(self.curve.level_set(q) * np.exp(shift(math.log(factor), self.law)))

    @property
    def smallest_factor(self) -> float:
        """Smallest multiple of the budget for which EMC can be estimated.

        This is 0 if the exact times of the fits are known; otherwise it is the budget of the first
        stage divided by the budget of the search.
        """
        if all(result.failed_after is None for result in self.history):
            return 0.0
        return 0.5 ** max(result.stage for result in self.history)

    def gain(self, q: float, factor: float) -> Quantiles:
        """Return the ratio by which the EMC changes if the budget is multiplied by ``factor``.

        Returns:
            Lower end, median and upper end of the interval of this ratio.
        """
        return self.curve.quantiles(self.level_set(q, factor) / self.curve.level_set(q), TAILS)

    def emc(self, q: float, factor: float) -> EmcInterval:
        """Return the EMC with ``factor`` times the budget.

        Args:
            q: P(fit) that defines the EMC: 0.5 for ``n50``.
            factor: multiple of the budget; above 1 the result is a prediction.
        """
        ends = self.curve.quantiles(self.level_set(q, factor), TAILS)
        fits = [r.n for r in self.history if r.fit and (r.time is None or r.time <= factor)]
        any_failed = len(fits) < len(self.history)
        return EmcInterval.from_quantiles(ends, fits, self.n_limit, any_failed=any_failed)


def budget_curve(history: History, n_limit: int) -> BudgetCurve | None:
    """Compute the posterior of the fit curve at all budgets; None if no time of a fit is known.

    Args:
        history: finished probes of one arm, in any order.
        n_limit: largest available n (samples).
    """
    ordered = evidence_of(history)
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
