"""Fit curve P(perfect fit | n) and its posterior given finished probes.

    P(fit | n) = (1 - lapse) / (1 + exp((log n - threshold) / width))

This is a logistic psychometric function in log n. The lapse rate accounts for optimisation failures
that occur at any n; it must be a free parameter (Prins 2012, Journal of Vision 12(6):25). The
posterior is evaluated on a grid, so it is exact up to the grid's resolution, and reproducible.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit, logit

from flexhpc.search.history import (
    TAILS,
    Floats,
    History,
    ProbeResult,
    Quantiles,
    accepted_and_unfinished,
    group_by_n,
)
from flexhpc.search.times import Times

WIDTHS = np.geomspace(0.015, 1.0, 11)
"""Grid of fit curve widths (log n). Measured: 0.05 (linear classifiers) to 0.35 (narrow MLPs)."""
WIDTH_MIDDLE, WIDTH_SPREAD = 0.25, 0.9
"""Log-normal prior of the fit curve's width: median, and standard deviation of log(width)."""
WIDTH_PRIOR = -0.5 * (np.log(WIDTHS / WIDTH_MIDDLE) / WIDTH_SPREAD) ** 2
LAPSES = np.array([0.0, 0.01, 0.03, 0.07, 0.15, 0.3, 0.5])
LAPSE_PRIOR = np.log([0.52, 0.2, 0.14, 0.08, 0.035, 0.018, 0.007])
_COARSE_SIZE, _MIDDLE_SIZE, _FINE_SIZE = 121, 61, 81
"""Number of thresholds in the grid: initially, after the first and after the second refinement."""
_LOWEST, _HIGHEST = 1 / 8, 4.0
"""Range of the threshold: from 1/8 sample to four times the available samples."""
_GRID_CUTOFF = 1e-5
"""The threshold grid ends where the posterior mass falls below this fraction of its maximum."""
_CELL_CUTOFF = 1e-6
"""Cells of the grid are dropped if their weight is below this fraction of the largest weight."""
_TINY = 1e-30


@dataclass(frozen=True, kw_only=True)
class FitCurve:
    """Posterior of the fit curve as weighted cells, each of which is one combination of parameters.

    All arrays have shape (cells,).

    Attributes:
        threshold: log n at the midpoint of the logistic function.
        width: scale of the logistic function in log n.
        lapse: lapse rate.
        weight: posterior probability of each cell; the sum is 1.
    """

    threshold: Floats
    width: Floats
    lapse: Floats
    weight: Floats

    def fit_probability(self, n: Floats) -> Floats:
        """Return P(fit | n) for each cell and each n, shape (cells, len(n))."""
        z = (self.threshold[:, None] - np.log(n)[None, :]) / self.width[:, None]
        return np.asarray((1 - self.lapse[:, None]) * expit(z))

    def mean_fit_probability(self, n: Floats) -> Floats:
        """Return the posterior mean of P(fit | n), shape (len(n),)."""
        return np.asarray(self.weight @ self.fit_probability(n))

    def n_at_fit_probability(self, q: float) -> Floats:
        """Return, for each cell, the n (samples) at which P(fit | n) = q, shape (cells,)."""
        inner = np.clip(q / (1 - self.lapse), 1e-9, 1 - 1e-9)
        return np.exp(self.threshold - self.width * logit(inner))

    def quantiles(self, values: Floats, levels: Quantiles = TAILS) -> Quantiles:
        """Return three posterior quantiles of a quantity, interpolated between cells.

        Args:
            values: for each cell, the value of the quantity, shape (cells,).
            levels: probabilities of the three quantiles, in [0, 1] and ascending; by default those
                of the lower end, median and upper end of an interval.
        """
        order = np.argsort(values, kind="stable")
        weight = self.weight[order]
        below = np.cumsum(weight) - weight / 2
        low, middle, high = (float(np.interp(level, below, values[order])) for level in levels)
        return low, middle, high

    def reweight(self, log_weight: Floats) -> FitCurve:
        """Return a copy whose weights are multiplied by exp(log_weight) and normalised.

        Args:
            log_weight: for each cell, the log of the factor, up to a constant, shape (cells,).
        """
        weight = self.weight * np.exp(log_weight - log_weight.max())
        return replace(self, weight=weight / weight.sum())

    def resample(self, size: int, values: Floats | None = None) -> FitCurve:
        """Return a posterior of ``size`` equally weighted cells, drawn by systematic resampling.

        If ``values`` (one per cell) is set, the drawn cells are sorted by these values.
        """
        count = len(self.weight)
        order = np.arange(count) if values is None else np.argsort(values, kind="stable")
        index = np.searchsorted(np.cumsum(self.weight[order]), (np.arange(size) + 0.5) / size)
        return self.select_cells(order[np.minimum(index, count - 1)])

    def select_cells(self, index: NDArray[np.intp]) -> FitCurve:
        """Return the posterior that consists of the cells at ``index``, with equal weights."""
        return FitCurve(
            threshold=self.threshold[index],
            width=self.width[index],
            lapse=self.lapse[index],
            weight=np.full(len(index), 1 / len(index)),
        )


def estimand_level(estimand: str) -> float:
    """Return the P(fit) that defines an estimand: 0.9 for ``n90``, 0.5 for ``last_fit``."""
    return int(estimand[1:]) / 100 if estimand[1:].isdecimal() else 0.5


def posterior(history: History, n_limit: int, eps: float | None = None) -> FitCurve:
    """Compute the posterior of the fit curve given all accepted probes.

    Unfinished training runs contribute only the fraction of the budget within which they failed.

    The prior of the threshold is uniform in log n from below one sample to above ``n_limit``. The
    prior of the width is log-normal with median 0.25; one standard deviation is a factor of 2.5.
    The prior of the lapse rate is mostly below 0.07. If all probes fitted, no threshold above the
    largest n is ruled out; if all failed, no threshold below the smallest n. In both cases, the
    caller must report the estimate as censored.

    Args:
        history: finished probes, in any order.
        n_limit: largest available n (samples).
        eps: training error up to which a probe counts as a fit. If it is set, the times are
            ignored.
    """
    return _posterior(accepted_and_unfinished(history), n_limit, eps)


@lru_cache(maxsize=64)
def _posterior(history: tuple[ProbeResult, ...], n_limit: int, eps: float | None) -> FitCurve:
    """Compute the posterior on a threshold grid that is refined around the posterior mass.

    Cells that are negligible given the verdicts are dropped. They would stay negligible, because
    the times change the odds of two cells by a bounded factor. Therefore the times are evaluated
    only on the remaining cells.
    """
    verdicts = _count_verdicts([r for r in history if not r.unfinished], eps)
    grid = np.linspace(math.log(_LOWEST), math.log(_HIGHEST * n_limit), _COARSE_SIZE)
    for size in (_MIDDLE_SIZE, _FINE_SIZE):
        mass = _verdict_posterior(verdicts, grid).sum(axis=(1, 2))
        grid = _refine_grid(grid, mass, size)
    weights = _verdict_posterior(verdicts, grid)
    i, j, k = cells = np.nonzero(weights > _CELL_CUTOFF * weights.max())
    threshold, width, lapse, weight = grid[i], WIDTHS[j], LAPSES[k], weights[cells]
    times = Times.from_history(history if eps is None else ())
    if len(times):
        flat = i * len(WIDTHS) + j  # sorted: the lapse rates of one curve are adjacent
        new = np.diff(flat, prepend=-1) > 0
        by_law = times.log_likelihood_by_law(threshold[new], width[new])
        weight = weight * np.exp(times.bounded_log_likelihood(by_law)[np.cumsum(new) - 1])
    return FitCurve(threshold=threshold, width=width, lapse=lapse, weight=weight / weight.sum())


def _count_verdicts(history: History, eps: float | None) -> Floats:
    """Return log n, the number of fits and the number of failures at each n, shape (3, n)."""
    groups = group_by_n(history)
    fits = [sum(result.fits_at(eps) for result in results) for results in groups.values()]
    fails = [len(results) - fit for results, fit in zip(groups.values(), fits, strict=True)]
    return np.array([np.log([*groups]), fits, fails], dtype=np.float64).reshape(3, -1)


def _verdict_posterior(verdicts: Floats, threshold: Floats) -> Floats:
    """Return the posterior given only the verdicts, shape (thresholds, widths, lapses).

    Args:
        verdicts: result of :func:`_count_verdicts`.
        threshold: grid of thresholds (log n), shape (thresholds,).
    """
    log_n, fits, fails = verdicts
    z = (threshold[:, None, None] - log_n) / WIDTHS[:, None]
    fails_without_lapse = expit(-z)
    spacing = np.log(np.gradient(threshold))[:, None, None]
    log_weight = spacing + WIDTH_PRIOR[:, None] + LAPSE_PRIOR + np.log1p(-LAPSES) * fits.sum()
    log_weight += (log_expit(z) @ fits)[:, :, None]
    for i, lapse in enumerate(LAPSES):
        log_weight[:, :, i] += np.log(lapse + (1 - lapse) * fails_without_lapse + _TINY) @ fails
    weight = np.exp(log_weight - log_weight.max())
    return np.asarray(weight / weight.sum())


def _refine_grid(threshold: Floats, mass: Floats, size: int) -> Floats:
    """Return a threshold grid of ``size`` values that is dense where the posterior mass is large.

    ``mass`` is the posterior mass at each value of the current grid ``threshold``.
    """
    (support,) = np.nonzero(mass > _GRID_CUTOFF * mass.max())
    rows = slice(max(support[0] - 1, 0), support[-1] + 2)
    density = mass[rows] / mass[rows].sum() + 1 / len(mass[rows])
    below = np.concatenate(([0.0], np.cumsum(density[1:] + density[:-1])))
    return np.interp(np.linspace(0, below[-1], size), below, threshold[rows])
