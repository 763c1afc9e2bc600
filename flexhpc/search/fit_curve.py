"""The fit curve P(perfect fit | n), and the posterior that finished probes make of it.

    P(fit | n) = (1 - lapse) / (1 + exp((log n - threshold) / width))

A logistic psychometric function in log n with a lapse rate: a training may fail at any n for the
optimizer's own reasons (Prins 2012, Journal of Vision 12(6):25, on why the lapse rate must be
free). The posterior is a plain grid: exact up to its resolution, and reproducible.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy.special import expit, logit

from flexhpc.search.evidence import Evidence, Floats
from flexhpc.search.history import History, ProbeResult, Quantiles, counted

WIDTHS = np.geomspace(0.015, 1.0, 11)
"""Grid of widths, in log n. Measured: 0.05 for linear classifiers to 0.35 for narrow MLPs."""
WIDTH_MIDDLE, WIDTH_SPREAD = 0.15, 0.7
"""Median of their prior, and the deviation of its logarithm."""
WIDTH_PRIOR = -0.5 * (np.log(WIDTHS / WIDTH_MIDDLE) / WIDTH_SPREAD) ** 2
LAPSES = np.array([0.0, 0.01, 0.03, 0.07, 0.15, 0.3, 0.5])
LAPSE_PRIOR = np.log([0.6, 0.2, 0.12, 0.05, 0.02, 0.01, 0.005])
_COARSE, _MIDDLE, _FINE = 121, 61, 81
_LEAST, _MOST = 1 / 8, 4.0
"""Reach of the threshold: from an eighth of a sample to four times as many as there are."""
_UNLIKELY, _NEGLIGIBLE = 1e-5, 1e-6


@dataclass(frozen=True, kw_only=True)
class FitCurve:
    """Posterior of the fit curve; all arrays have shape (cells,).

    Attributes:
        threshold: log n at the middle of the curve.
        width: its width in log n.
        lapse: its lapse rate.
        weight: posterior probability of the cell; sums to 1.
    """

    threshold: Floats
    width: Floats
    lapse: Floats
    weight: Floats

    def chance(self, n: Floats) -> Floats:
        """Return P(fit | n) per cell and n: shape (cells, len(n))."""
        z = (self.threshold[:, None] - np.log(n)[None, :]) / self.width[:, None]
        return np.asarray((1 - self.lapse[:, None]) * expit(z))

    def mean_chance(self, n: Floats) -> Floats:
        """Return the posterior mean of P(fit | n): shape (len(n),)."""
        return np.asarray(self.weight @ self.chance(n))

    def level_set(self, q: float) -> Floats:
        """Return per cell the n (samples) at which P(fit | n) = q."""
        inner = np.clip(q / (1 - self.lapse), 1e-9, 1 - 1e-9)
        return np.exp(self.threshold - self.width * logit(inner))

    def quantiles(self, values: Floats, levels: Quantiles) -> Quantiles:
        """Return posterior quantiles of a per-cell quantity, interpolated between cells."""
        order = np.argsort(values, kind="stable")
        weight = self.weight[order]
        below = np.cumsum(weight) - weight / 2
        low, middle, high = (float(np.interp(level, below, values[order])) for level in levels)
        return low, middle, high

    def reweighted(self, log_weight: Floats) -> FitCurve:
        """Return the curve with more said of its cells: log-weights (cells,), up to a constant."""
        weight = self.weight * np.exp(log_weight - log_weight.max())
        return replace(self, weight=weight / weight.sum())

    def thin(self, size: int, values: Floats | None = None) -> FitCurve:
        """Return ``size`` equally weighted cells by systematic resampling.

        With ``values``, per cell, they come in the order of these.
        """
        order = slice(None) if values is None else np.argsort(values, kind="stable")
        at = np.searchsorted(np.cumsum(self.weight[order]), (np.arange(size) + 0.5) / size)
        at = np.minimum(at, len(self.weight) - 1)
        return FitCurve(
            threshold=self.threshold[order][at],
            width=self.width[order][at],
            lapse=self.lapse[order][at],
            weight=np.full(size, 1 / size),
        )


def quantile_of(estimand: str) -> float:
    """Return at which part of the trainings an estimand lies: 0.5 of ``n50``.

    The last n before the first failure (``last_fit``) lies at none; its trainings tell of n50.
    """
    return int(estimand[1:]) / 100 if estimand[1:].isdecimal() else 0.5


def posterior(history: History, n_limit: int, eps: float | None = None) -> FitCurve:
    """Return the posterior of the fit curve given every probe that counts.

    Args:
        history: finished probes, in any order.
        n_limit: largest n there is (samples).
        eps: training error that counts as a fit; then only the verdicts are used.

    Prior: threshold uniform in log n from below one sample to beyond all there are; width
    log-normal around 0.15 with a factor of 2; lapse mostly below 0.03. What lies beyond the tried n
    is not ruled out by data, so an estimate that is open on one side must be reported as censored
    there.
    """
    ordered = sorted(counted(history), key=lambda r: (r.n, r.repeat))
    return _posterior(tuple(ordered), n_limit, eps)


@lru_cache(maxsize=64)
def _posterior(history: tuple[ProbeResult, ...], n_limit: int, eps: float | None) -> FitCurve:
    """Refine the grid of thresholds to where the posterior lies, and drop what is negligible.

    The counts of missed samples shift odds by a bounded factor, so what the verdicts alone make
    negligible stays so: only the cells that are left are judged by both.
    """
    evidence = Evidence.of(history, eps)
    fine = np.linspace(math.log(_LEAST), math.log(_MOST * n_limit), _COARSE)
    for size in (_MIDDLE, _FINE):
        fine = _refined(fine, _weights(evidence, fine).sum(axis=(1, 2)), size)
    weights = _weights(evidence, fine)
    kept = np.nonzero(weights > _NEGLIGIBLE * weights.max())
    flat = kept[0] * len(WIDTHS) + kept[1]  # ascends: a curve's lapse rates lie side by side
    new = np.diff(flat, prepend=-1) > 0
    curves, of = flat[new], np.cumsum(new) - 1
    threshold, width, lapse = fine[kept[0]], WIDTHS[kept[1]], LAPSES[kept[2]]
    weight = weights[kept]
    if evidence.counts:
        places, wide = np.divmod(curves, len(WIDTHS))
        added = evidence.missed(fine[places], WIDTHS[wide], of, lapse)
        weight = weight * np.exp(added)
    return FitCurve(threshold=threshold, width=width, lapse=lapse, weight=weight / weight.sum())


def _weights(evidence: Evidence, threshold: Floats) -> Floats:
    """Return the posterior of a grid by the verdicts alone, shape (T, W, L); sums to 1."""
    spacing = np.log(np.gradient(threshold))[:, None, None]
    log_likelihood = evidence.verdicts(
        threshold[:, None, None], WIDTHS[None, :, None], LAPSES[None, None]
    )
    total = log_likelihood + spacing + WIDTH_PRIOR[:, None] + LAPSE_PRIOR
    weight = np.exp(total - total.max())
    return np.asarray(weight / weight.sum())


def _refined(threshold: Floats, mass: Floats, size: int) -> Floats:
    """Return a grid that is dense where a posterior lies, and reaches as far as it does."""
    (support,) = np.nonzero(mass > _UNLIKELY * mass.max())
    some = slice(max(support[0] - 1, 0), support[-1] + 2)
    density = mass[some] / mass[some].sum() + 1 / len(mass[some])
    below = np.concatenate(([0.0], np.cumsum(density[1:] + density[:-1])))
    return np.interp(np.linspace(0, below[-1], size), below, threshold[some])
