"""What finished probes say about the fit curve: log-likelihoods over grids of curves.

A probe's latent ease is u = (log n - threshold) / width + noise, the noise logistic; the probe fits
where u < 0. Besides the verdict, two more things are used:

- the samples that a failing probe missed: log(missed) = onset + spread * u, seen to half a sample.
  Onset and spread differ from model to model and are free: at the threshold a few samples, or a
  share of all where a network that does not fit is much worse at once. With a spread of nearly 0
  the count says nothing, as that of an exact solver.
- the part of its budget that a fitting probe used, far below the threshold mostly: a line in log n
  with free offset and slope around what recorded trainings show.

Each has a broad alternative beside it, so that a model which does neither loses little. How they
were chosen and what they gain: docs/search.md, bench/search.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit

from flexhpc.search.history import History, ProbeResult, passes

Floats = NDArray[np.float64]

FALSE_STOPS = 0.01
"""Share of the probes which would have fitted that are given up; measured by bench/search."""
_SPREADS = np.array([0.02, 0.02, 0.5, 0.5, 1.2, 1.2, 0.5, 1.2])
_ONSETS = np.log([0.5, 3.0, 0.5, 3.0, 0.5, 3.0, 0.05, 0.05])
_OF_ALL = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0])
"""1 where the onset is a share of all samples, 0 where it is a number of them."""
_MISSED_PRIOR = np.log([0.19, 0.08, 0.25, 0.11, 0.19, 0.08, 0.05, 0.05])
_UNEXPLAINED = 0.15
"""Share of failures whose count follows no such law."""
_MOST_OF_COUNTS = 50.0
"""Largest factor by which all counts of a point may shift the odds of two curves."""
_OFFSET, _SLOPE = (-1.0, 0.7), (1.5, 1.5)
"""Mean and deviation, between models, of log(share used) at the threshold, and of its slope."""
_SCATTERS = (0.25, 0.45, 0.8)
_BEND = 0.25
"""Deviation from the line, per unit of log n from the threshold."""
_MOST_OF_BUDGETS = 5.0
"""The same for the budgets used."""
_TINY = 1e-30


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Finished probes as arrays.

    Attributes:
        fit_n, fit_counts: distinct log n of the fits, and how many at each.
        used_n, used: log n of the fits whose part of the budget is known, and its log.
        fail_n: log n of each failure; missed_lo, missed_hi: log of the fewest and the most samples,
            minus and plus a half, that it may have missed at its end (infinite where unknown).
        broad: probability of that range if nothing is known of it.
        given_up: 1 where the failure was foreseen rather than seen.
    """

    fit_n: Floats
    fit_counts: Floats
    used_n: Floats
    used: Floats
    fail_n: Floats
    missed_lo: Floats
    missed_hi: Floats
    broad: Floats
    given_up: Floats

    @classmethod
    def of(cls, history: History, eps: float | None) -> Evidence:
        """Take in a history; with ``eps``, a training error that counts as a fit, its verdicts."""
        fitting = passes(eps)
        fits = [r for r in history if fitting(r)]
        fails = [_failure(r, counted=eps is None) for r in history if not fitting(r)]
        ns, counts = np.unique([r.n for r in fits], return_counts=True)
        known = [(math.log(r.n), math.log(r.share)) for r in fits if r.share] if eps is None else []
        columns = np.array(fails, dtype=np.float64).reshape(-1, 5).T
        used = np.array(known, dtype=np.float64).reshape(-1, 2).T
        return cls(
            fit_n=np.log(ns.astype(np.float64)),
            fit_counts=counts.astype(np.float64),
            used_n=used[0],
            used=used[1],
            fail_n=columns[0],
            missed_lo=columns[1],
            missed_hi=columns[2],
            broad=columns[3],
            given_up=columns[4],
        )

    @property
    def counts(self) -> bool:
        """Whether any failure's count of missed samples is known."""
        return bool(np.isfinite(self.missed_hi).any())

    def log_likelihood(
        self, threshold: Floats, width: Floats, lapse: Floats, *, rough: bool = False
    ) -> Floats:
        """Return the log-likelihood of curves, up to a constant.

        Args:
            threshold: log n, shape (T,); width: in log n, (W,); lapse: (L,).
            rough: leave out the counts of missed samples.

        Returns:
            Shape (T, W, L).
        """
        z = (threshold[:, None, None] - self.fit_n) / width[None, :, None]
        fits = log_expit(z) @ self.fit_counts
        lapsed = self.fit_counts.sum() * np.log1p(-lapse)
        fails = self._failures(threshold, width, lapse, counted=False)
        if self.counts and not rough:
            told = self._failures(threshold, width, lapse, counted=True) - fails
            fails = fails + _bounded(told, _MOST_OF_COUNTS)
        both = fits[:, :, None] + lapsed + fails
        return np.asarray(both + self._budgets(threshold)[:, None, None])

    def _failures(self, threshold: Floats, width: Floats, lapse: Floats, counted: bool) -> Floats:
        prior = _MISSED_PRIOR if counted else np.zeros(1)
        total = np.zeros((len(threshold), len(width), len(lapse), len(prior))) + prior
        for some in np.array_split(np.arange(len(self.fail_n)), -(-len(self.fail_n) // 8) or 1):
            x = (self.fail_n[some] - threshold[:, None, None]) / width[None, :, None]
            chance = expit(x)[:, :, None, :]
            if counted:
                onset = _ONSETS[:, None] + _OF_ALL[:, None] * self.fail_n[some]
                low, high = (
                    np.maximum((edge[some] - onset) / _SPREADS[:, None], 0.0)
                    for edge in (self.missed_lo, self.missed_hi)
                )
                inside = expit(high - x[:, :, None, :]) - expit(low - x[:, :, None, :])
                broad = self.broad[some]
                failed = (1 - _UNEXPLAINED) * inside + _UNEXPLAINED * broad * chance
            else:
                broad, failed = np.ones(len(some)), chance
            failed = failed + FALSE_STOPS * self.given_up[some] * broad * (1 - chance)
            rate = lapse[:, None, None]
            product = np.prod(rate * broad + (1 - rate) * failed[:, :, None] + _TINY, axis=-1)
            total = total + np.log(product)
        peak = total.max(axis=-1, keepdims=True)
        return np.asarray(np.log(np.exp(total - peak).sum(axis=-1)) + peak[..., 0])

    def _budgets(self, threshold: Floats) -> Floats:
        """Marginal likelihood of a linear regression with a normal prior, per threshold."""
        if not len(self.used):
            return np.zeros(len(threshold))
        x = self.used_n - threshold[:, None]
        rest = self.used - _OFFSET[0] - _SLOPE[0] * x
        found = []
        for scatter in _SCATTERS:
            weight = 1 / (scatter**2 + (_BEND * x) ** 2)
            a = 1 / _OFFSET[1] ** 2 + weight.sum(1)
            b = (weight * x).sum(1)
            c = 1 / _SLOPE[1] ** 2 + (weight * x * x).sum(1)
            u, v = (weight * rest).sum(1), (weight * x * rest).sum(1)
            determinant = a * c - b * b
            explained = (c * u * u - 2 * b * u * v + a * v * v) / determinant
            misfit = (weight * rest * rest).sum(1) - explained
            found.append(0.5 * (np.log(weight).sum(1) - np.log(determinant) - misfit))
        line = np.logaddexp.reduce(found, axis=0)
        return _bounded(line, _MOST_OF_BUDGETS)


def _bounded(told: Floats, most: float) -> Floats:
    """Return a log-likelihood that can shift odds by a factor of ``most`` at most."""
    return np.asarray(np.log((1 - 1 / most) * np.exp(told - told.max()) + 1 / most))


def _failure(result: ProbeResult, counted: bool) -> tuple[float, float, float, float, float]:
    """Return a failure's row of :class:`Evidence`: log n, missed (lo, hi), broad, given up."""
    n, missed = result.n, result.n_errors
    given_up = float(result.given_up)
    if not counted or missed < 1 or result.verdict == "diverged":
        return math.log(n), -math.inf, math.inf, 1.0, given_up
    # A probe that was given up would have missed fewer at its end, or as many.
    low = math.log(0.5 if result.given_up else missed - 0.5)
    high = math.log(missed + 0.5)
    broad = (high - low) / math.log(2 * n + 1)
    return math.log(n), low, math.inf if missed >= n else high, broad, given_up
