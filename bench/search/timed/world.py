"""Worlds of training runs with a known distribution of the update at which they fit."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from sklearn.isotonic import IsotonicRegression

from bench.search.tables import Training
from bench.search.timed.record import DOUBLINGS, VERDICTS
from flexhpc.search.evidence import Floats

HERE = Path(__file__).parent
_LEVELS = (np.arange(200) + 0.5) / 200


class TimedTable:
    """A world with one budget that draws from the recorded training runs of one model.

    The quantiles of the time to fit are interpolated between the recorded n, so P(fit | n) is known
    exactly at any n and budget. A failing training run is drawn from the recorded ones at the
    nearest n at which training runs failed.

    Args:
        name: name of the model.
        doublings: log2 of the budget relative to that of the spec.
    """

    n_limit = 20_000

    def __init__(self, name: str, doublings: int = 0) -> None:
        with np.load(HERE / f"{name}.npz") as stored:
            rows, steps = stored["rows"], int(stored["budget"])
        self.budget = steps * 2.0**doublings
        self.largest = math.log(steps * 2.0 ** DOUBLINGS.max())
        seen = rows[:, 2:].reshape(len(rows), len(DOUBLINGS), 3)
        self._seen = seen[:, DOUBLINGS.tolist().index(doublings)]
        self._n = rows[:, 0]
        self.rows = np.unique(self._n)
        last = seen[:, -1]
        time = np.where(last[:, 0] == 0, np.log(np.maximum(last[:, 1], 1)), np.inf)
        capped = np.minimum(time, self.largest + math.log(4))
        table = np.array([np.quantile(capped[self._n == n], _LEVELS) for n in self.rows])
        smooth = IsotonicRegression(increasing=True)
        self._log_times = np.array(
            [smooth.fit_transform(np.log(self.rows), column) for column in table.T]
        ).T
        """Log update of the fit, shape (recorded n, levels); large if it never fits."""

    def log_times(self, n: float) -> Floats:
        """Return the quantiles of the log update at which a training run with n samples fits.

        They are extrapolated below the smallest recorded n.
        """
        ladder = np.log(self.rows)
        low = int(np.clip(np.searchsorted(ladder, math.log(n)) - 1, 0, len(ladder) - 2))
        part = min((math.log(n) - ladder[low]) / (ladder[low + 1] - ladder[low]), 1.0)
        steps = self._log_times[low + 1] - self._log_times[low]
        if part < 0:  # below the ladder: extrapolate all levels with the median step
            steps = np.full_like(steps, np.median(steps))
        return np.asarray(self._log_times[low] + part * steps)

    def chance(self, n: float) -> float:
        """See :class:`bench.search.tables.World`."""
        return float(np.mean(self.log_times(n) <= math.log(self.budget)))

    def emc(self, budget: float) -> float:
        """Return the n at which half of all training runs fit within a budget (updates)."""
        low, high = 1.0, float(self.n_limit)
        while high / low > 1 + 1e-4:
            n = math.sqrt(low * high)
            fits = np.mean(self.log_times(n) <= math.log(budget)) > 0.5
            low, high = (n, high) if fits else (low, n)
        return low

    def draw(self, n: int, rng: np.random.Generator) -> Training:
        """See :class:`bench.search.tables.World`."""
        full = round(self.budget * min(32, n))
        log_time = float(np.interp(rng.random(), _LEVELS, self.log_times(n)))
        if log_time <= math.log(self.budget):
            share = math.exp(log_time) / self.budget
            return Training(
                verdict="fit", n_errors=0, share=share, cost=round(full * share), full_cost=full,
                time=share,
            )  # fmt: skip
        fails = self._seen[:, 0] > 0
        if not fails.any():
            return Training(verdict="unconverged", n_errors=1, share=1.0, cost=full, full_cost=full)
        nearest = min(set(self._n[fails]), key=lambda m: abs(math.log(m / n)))
        row = rng.choice(np.nonzero(fails & (self._n == nearest))[0])
        verdict, steps, missed = self._seen[row]
        share = min(1.0, float(steps) / self.budget)
        return Training(
            verdict=VERDICTS[verdict],
            n_errors=int(np.clip(round(missed * n / nearest), 1, n)),
            share=share,
            cost=round(full * share),
            full_cost=full,
        )
