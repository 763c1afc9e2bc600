"""The fit curve P(perfect fit | n) and what a history of verdicts says about it.

    P(fit | n) = (1 - lapse) / (1 + exp((log n - threshold) / width))

A logistic psychometric function in log n with a lapse rate: a training may fail at any n for the
optimizer's own reasons (Prins 2012, Journal of Vision 12(6):25, on why the lapse rate must be
free). The posterior is a plain grid: exact up to its resolution, and reproducible.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from flexhpc.search.history import History, ProbeResult, counted

Floats = NDArray[np.float64]

WIDTHS = np.geomspace(0.02, 1.0, 24)
"""Grid of widths, in log n. Wide real curves: a width of about 0.25 was measured for small MLPs."""
LAPSES = np.array([0.0, 0.01, 0.03, 0.06, 0.12])
_LAPSE_PRIOR = np.array([0.7, 0.15, 0.1, 0.04, 0.01])
_THRESHOLDS = 401
_REACH = 4.0


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

    def quantiles(self, values: Floats, levels: tuple[float, ...]) -> list[float]:
        """Return posterior quantiles of a per-cell quantity."""
        order = np.argsort(values, kind="stable")
        below = np.cumsum(self.weight[order])
        return [float(np.interp(level, below, values[order])) for level in levels]

    def thin(self, size: int) -> FitCurve:
        """Return ``size`` equally weighted cells by systematic resampling."""
        at = np.searchsorted(np.cumsum(self.weight), (np.arange(size) + 0.5) / size)
        at = np.minimum(at, len(self.weight) - 1)
        return FitCurve(
            threshold=self.threshold[at],
            width=self.width[at],
            lapse=self.lapse[at],
            weight=np.full(size, 1 / size),
        )


def posterior(
    history: History, passed: Callable[[ProbeResult], bool] = lambda result: result.fit
) -> FitCurve:
    """Return the posterior of the curve P(passed | n) given every probe that counts.

    By default a probe passes if it fits.

    Prior: width log-uniform, lapse mostly near zero, threshold uniform in log n from a quarter of
    the smallest n tried to four times the largest. What lies beyond the tried n by more than that
    is not ruled out by data but by having been given no chance, so a bracket that is open on one
    side must be reported as censored there.
    """
    tried = [result.n for result in history]
    history = counted(history)
    low, high = np.log(min(tried) / _REACH), np.log(max(tried) * _REACH)
    thresholds = np.linspace(low, high, _THRESHOLDS)
    mesh = np.meshgrid(thresholds, WIDTHS, LAPSES, indexing="ij")
    threshold, width, lapse = (axis.ravel() for axis in mesh)
    log_weight = np.log(np.broadcast_to(_LAPSE_PRIOR, mesh[0].shape).ravel())
    for n, fits, fails in _counts(history, passed):
        chance = np.clip((1 - lapse) * expit((threshold - np.log(n)) / width), 1e-12, 1 - 1e-12)
        log_weight = log_weight + fits * np.log(chance) + fails * np.log1p(-chance)
    weight = np.exp(log_weight - log_weight.max())
    kept = weight > 1e-9
    return FitCurve(
        threshold=threshold[kept],
        width=width[kept],
        lapse=lapse[kept],
        weight=weight[kept] / weight[kept].sum(),
    )


def _counts(history: History, passed: Callable[[ProbeResult], bool]) -> list[tuple[int, int, int]]:
    """Return (n, probes that passed, that did not) per distinct n."""
    counts: dict[int, list[int]] = {}
    for result in history:
        counts.setdefault(result.n, [0, 0])[0 if passed(result) else 1] += 1
    return [(n, fits, fails) for n, (fits, fails) in sorted(counts.items())]
