"""Worlds of training runs with a known distribution of the update at which they fit."""

from __future__ import annotations

import math

import numpy as np
from sklearn.isotonic import IsotonicRegression

from bench.search.budgets.record import DOUBLINGS, MODELS, VERDICTS
from bench.search.worlds import TrainingRun
from flexhpc.search.history import Floats

_LEVELS = (np.arange(200) + 0.5) / 200


class TimedWorld:
    """A world with one budget that draws from the recorded training runs of one model.

    The quantiles of the time to fit are interpolated between the recorded n, so P(fit | n) is known
    exactly at any n and budget. A failed training run is drawn from the recorded failures at the
    nearest n.

    Args:
        name: name of the model.
        doublings: log2(budget / budget of the spec).
    """

    n_limit = 20_000

    def __init__(self, name: str, doublings: int = 0) -> None:
        with np.load(MODELS / f"{name}.npz") as file:
            rows, steps = file["rows"], int(file["budget"])
        self.budget = steps * 2.0**doublings
        outcomes = rows[:, 2:].reshape(len(rows), len(DOUBLINGS), 3)
        self._outcomes = outcomes[:, DOUBLINGS.tolist().index(doublings)]
        self._n = rows[:, 0]
        self.sizes = np.unique(self._n)
        verdicts, updates = outcomes[:, -1, 0], outcomes[:, -1, 1]
        log_times = np.where(verdicts == 0, np.log(np.maximum(updates, 1)), np.inf)
        longest = math.log(steps * 2.0 ** DOUBLINGS.max())
        log_times = np.minimum(log_times, longest + math.log(4))
        quantiles = np.array([np.quantile(log_times[self._n == n], _LEVELS) for n in self.sizes])
        monotone = IsotonicRegression(increasing=True)
        self._log_times = np.array(
            [monotone.fit_transform(np.log(self.sizes), column) for column in quantiles.T]
        ).T
        """Log of the update of the fit, shape (recorded n, levels); large without a fit."""

    def log_times(self, n: float) -> Floats:
        """Return quantiles of the log of the update at which a training run on n samples fits.

        Below the smallest recorded n, the quantiles are extrapolated.
        """
        log_n = np.log(self.sizes)
        low = int(np.clip(np.searchsorted(log_n, math.log(n)) - 1, 0, len(log_n) - 2))
        fraction = min((math.log(n) - log_n[low]) / (log_n[low + 1] - log_n[low]), 1.0)
        steps = self._log_times[low + 1] - self._log_times[low]
        if fraction < 0:  # below the recorded n: extrapolate all levels with the median step
            steps = np.full_like(steps, np.median(steps))
        return np.asarray(self._log_times[low] + fraction * steps)

    def fit_probability(self, n: float) -> float:
        """See :class:`bench.search.worlds.World`."""
        return float(np.mean(self.log_times(n) <= math.log(self.budget)))

    def emc(self, budget: float) -> float:
        """Return the n at which half of all training runs fit within a budget (updates)."""
        low, high = 1.0, float(self.n_limit)
        while high / low > 1 + 1e-4:
            n = math.sqrt(low * high)
            fits = np.mean(self.log_times(n) <= math.log(budget)) > 0.5
            low, high = (n, high) if fits else (low, n)
        return low

    def draw(self, n: int, rng: np.random.Generator) -> TrainingRun:
        """See :class:`bench.search.worlds.World`."""
        full_cost = round(self.budget * min(32, n))
        log_time = float(np.interp(rng.random(), _LEVELS, self.log_times(n)))
        if log_time <= math.log(self.budget):
            share = math.exp(log_time) / self.budget
            return TrainingRun(
                verdict="fit", share=share, cost=round(full_cost * share),
                full_cost=full_cost, time=share,
            )  # fmt: skip
        failed = self._outcomes[:, 0] > 0
        if not failed.any():
            return TrainingRun(
                verdict="unconverged", share=1.0, cost=full_cost, full_cost=full_cost
            )
        nearest = min(set(self._n[failed]), key=lambda size: abs(math.log(size / n)))
        row = rng.choice(np.nonzero(failed & (self._n == nearest))[0])
        verdict, steps, _ = self._outcomes[row]
        share = min(1.0, float(steps) / self.budget)
        return TrainingRun(
            verdict=VERDICTS[verdict],
            share=share,
            cost=round(full_cost * share),
            full_cost=full_cost,
        )
