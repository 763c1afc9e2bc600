"""Likelihood of the times at which training runs fitted, on grids of fit curves.

With exp(u) times the budget, the threshold of the fit curve moves by ``shift(u)`` in log n (see
:func:`log_emc_shift`)::

    P(fit within exp(u) times the budget | n)
        = (1 - lapse) / (1 + exp((log n - threshold - shift(u)) / width))
    shift'(u) = early / (1 + exp(rate (u - saturates))),    shift(0) = 0

EMC is proportional to budget ** early for small budgets, and constant for large budgets. A
training run that fits after a fraction exp(u) of the budget contributes the density of this time to
the likelihood. This model requires that a larger budget only appends updates to a training run.

A growth law is one combination of the parameters ``early``, ``saturates`` and ``rate``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from flexhpc.search.history import Floats, History

_EARLY = np.geomspace(0.35, 6.0, 10)
_SATURATES = np.arange(-7.0, 3.5, 1.25)
_RATE = np.array([0.7, 1.6])
EARLY, SATURATES, RATE = (
    grid.ravel() for grid in np.meshgrid(_EARLY, _SATURATES, _RATE, indexing="ij")
)
"""Parameters of each growth law, on a grid; shape (laws,)."""
_WEIGHT = np.exp(-0.5 * (np.log(EARLY / 1.2) / 0.8) ** 2)
LAW_PRIOR = np.log(_WEIGHT / _WEIGHT.sum())
"""Log prior probability of each growth law: log-normal in ``early``, uniform in ``saturates``
and ``rate``."""
UNEXPLAINED = 0.1
"""Assumed fraction of fits whose times follow no growth law."""
BROAD = 1 / 8
"""Density (per unit of log time) of the times that follow no growth law."""
NO_LAW = 0.1
"""Prior odds that no growth law describes the times of a point."""
MAX_TIME_FACTOR = 10.0
"""Largest factor by which the times of a point, over all its probes, can change the odds between
two fit curves."""
WIDENING = 0.75
"""Relative increase of a fit curve's width per unit of log n below the threshold. The width is
increased because far below the threshold, the times of training runs vary more and follow the
growth laws less exactly."""
LAPSE_RATE = 0.05
"""Lapse rate that is assumed for unfinished training runs."""
SHORTEST = math.exp(-1 / BROAD)
"""Assumed lower bound on the time of a fit (fraction of the budget) if only an upper bound is
known."""
_TINY = 1e-30
_PER_PRODUCT = 8
"""Number of densities that are multiplied before the logarithm of their product is taken. This
saves logarithms, which dominate the run time."""


def slope(log_factor: float) -> Floats:
    """Return d log EMC / d log budget of each law, shape (laws,).

    Args:
        log_factor: log(budget at which the slope is computed / budget of the search).
    """
    return np.asarray(EARLY * expit(RATE * (SATURATES - log_factor)))


def log_emc_shift(log_factor: float) -> Floats:
    """Return the change of log EMC of each law from one budget to another, shape (laws,).

    Args:
        log_factor: log(other budget / budget of the search).
    """
    bend = np.logaddexp(0, RATE * (log_factor - SATURATES)) - np.logaddexp(0, -RATE * SATURATES)
    return np.asarray(EARLY * (log_factor - bend / RATE))


@dataclass(frozen=True, kw_only=True)
class Times:
    """Times of the fits and of the unfinished training runs in a history.

    A time is the fraction of the budget that a training run used.

    Attributes:
        exact: log n and log time of the fits whose exact time is known, shape (2, fits).
        interval_censored: for each fit whose exact time is unknown: log n, log time of the last
            failure, and log time of the fit, shape (3, fits).
        unfinished: log n and log time of unfinished training runs, shape (2, unfinished).
    """

    exact: Floats
    interval_censored: Floats
    unfinished: Floats

    @classmethod
    def from_history(cls, history: History) -> Times:
        """Collect the times of the fits and of the unfinished training runs in a history."""
        timed = [r for r in history if r.time]
        exact = [(r.n, r.time) for r in timed if not r.unfinished and r.failed_after is None]
        unfinished = [(r.n, r.time) for r in timed if r.unfinished]
        between = [
            (r.n, min(max(r.failed_after, SHORTEST), r.time / 2), r.time)
            for r in timed
            if r.time and r.failed_after is not None and (r.failed_after, r.time) != (0.0, 1.0)
        ]
        return cls(
            exact=_log_columns(exact, 2),
            interval_censored=_log_columns(between, 3),
            unfinished=_log_columns(unfinished, 2),
        )

    def __len__(self) -> int:
        return len(self.exact.T) + len(self.interval_censored.T)

    def log_likelihood_by_law(self, threshold: Floats, width: Floats) -> Floats:
        """Return the log-likelihood of the times for each fit curve and growth law.

        The likelihood of the time of a fit is conditional on the fact that the training run fitted.

        Args:
            threshold, width: threshold and width of each curve (log n), shape (curves,).

        Returns:
            Log-likelihood plus log prior probability of the law, shape (curves, laws).
        """
        total = np.tile(LAW_PRIOR, (len(threshold), 1))
        for first in range(0, len(self.exact.T), _PER_PRODUCT):
            product = np.ones(total.shape, np.float32)
            for log_n, log_time in self.exact[:, first : first + _PER_PRODUCT].T:
                distance = threshold - log_n
                scale = width * (1 + WIDENING * np.maximum(distance, 0))
                fits = scale * expit(distance / scale) + _TINY
                shifted = log_emc_shift(log_time).astype(np.float32)
                z = np.abs(distance.astype(np.float32)[:, None] + shifted)
                z *= (-1 / scale).astype(np.float32)[:, None]
                tail = np.exp(z, out=z)
                density = tail / np.square(1 + tail)
                density *= ((1 - UNEXPLAINED) / fits).astype(np.float32)[:, None]
                density *= slope(log_time).astype(np.float32)
                density += np.float32(UNEXPLAINED * BROAD)
                product *= density
            total += np.log(product)
        for log_n, failed, fitted in self.interval_censored.T:
            distance = threshold - log_n
            scale = width * (1 + WIDENING * np.maximum(distance, 0))
            before, after = (
                expit((distance[:, None] + log_emc_shift(log_time)) / scale[:, None])
                for log_time in (failed, fitted)
            )
            chance = (after - before) / (expit(distance / scale) + _TINY)[:, None]
            broad = UNEXPLAINED * BROAD * (fitted - failed)
            total += np.log((1 - UNEXPLAINED) * chance + broad)
        for log_n, log_time in self.unfinished.T:
            scale = width * (1 + WIDENING * np.maximum(threshold - log_n, 0))
            late = threshold[:, None] + log_emc_shift(log_time) - log_n
            total += np.log1p((LAPSE_RATE - 1) * expit(late / scale[:, None]))
        return total

    def verdict_log_likelihood(
        self, log_factor: float, threshold: Floats, width: Floats, change: Floats
    ) -> Floats:
        """Return the log-likelihood of the verdicts at a smaller budget, shape (curves,).

        The likelihood is conditional on the verdicts at the full budget. A training run that fitted
        with the full budget either fitted within the smaller budget, or had not fitted by then.

        Args:
            log_factor: log(smaller budget / full budget).
            threshold, width: threshold and width of each curve at the full budget (log n), shape
                (curves,).
            change: threshold at the smaller budget minus ``threshold``, shape (curves,).
        """
        total = np.zeros(len(threshold))
        exact = self.exact[[0, 1, 1]]
        for log_n, failed, fitted in np.concatenate([exact, self.interval_censored], axis=1).T:
            if failed < log_factor < fitted:  # the verdict is unknown
                continue
            distance = threshold - log_n
            scale = width * (1 + WIDENING * np.maximum(distance, 0))
            early = expit((distance + change) / scale) / (expit(distance / scale) + _TINY)
            early = (1 - UNEXPLAINED) * early + UNEXPLAINED / 2
            total += np.log(early if fitted <= log_factor else 1 - early)
        return total

    def bounded_log_likelihood(self, by_law: Floats) -> Floats:
        """Return log(likelihood summed over all growth laws + floor) + constant, shape (curves,).

        The floor is at least the largest likelihood divided by ``MAX_TIME_FACTOR``. It limits the
        factor by which the times change the odds of one curve against another, so that an incorrect
        growth law cannot outweigh the verdicts. If no curve explains the times better than a broad
        distribution, the floor is so large that the times have hardly any effect.

        Args:
            by_law: result of :meth:`log_likelihood_by_law`.
        """
        likelihood = np.exp(by_law - by_law.max()).sum(axis=1)
        _, failed, fitted = self.interval_censored
        broad = len(self) * math.log(BROAD) + np.log(fitted - failed).sum() - by_law.max()
        floor = likelihood.max() / MAX_TIME_FACTOR + NO_LAW * math.exp(min(broad, 50.0))
        return np.asarray(np.log(likelihood + floor))


def _log_columns(rows: Sequence[Sequence[float | None]], n_columns: int) -> Floats:
    """Return the logarithms of the values in ``rows``, transposed to shape (n_columns, rows)."""
    return np.asarray(np.log(np.array(rows, dtype=np.float64).reshape(-1, n_columns)).T)
