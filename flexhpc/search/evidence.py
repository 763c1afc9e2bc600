"""Likelihood of finished probes, evaluated on grids of fit curves.

The latent difficulty of a probe is u = (log n - threshold) / width + noise with logistic noise; the
probe fits if u < 0. If it fails, the number of missed samples is used in addition to the verdict:
log(missed) = onset + spread * u, and ``missed`` is rounded to an integer. Onset and spread depend
on the network and are marginalised. The onset is the log of a few samples or, for networks that
fail abruptly, of a fraction of all samples. With a spread near 0, as for an exact solver, the
number of missed samples is uninformative.

A lapse is a failure that can occur at any n. The number of samples missed in a lapse is small in
some cases, and has any value in the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit

from flexhpc.search.history import UNINFORMATIVE, History, ProbeResult

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

SPREADS = np.array([0.02, 0.02, 0.5, 0.5, 1.2, 1.2, 0.5, 1.2])
ONSETS = np.log([0.5, 3.0, 0.5, 3.0, 0.5, 3.0, 0.05, 0.05])
RELATIVE_ONSET = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0])
"""Per (spread, onset) pair: 1 if the onset is a fraction of all samples, 0 if a sample count."""
PAIR_PRIOR = np.array([0.19, 0.08, 0.25, 0.11, 0.19, 0.08, 0.05, 0.05])
"""Prior probability of each (spread, onset) pair."""
UNEXPLAINED = 0.15
"""Fraction of failures whose number of missed samples does not follow any (spread, onset) pair."""
FEW_MISSED = 0.2
"""Fraction of lapses in which only a few samples are missed. In these lapses, m samples are missed
with probability 1 / (m (m + 1))."""
MAX_COUNT_FACTOR = 50.0
"""Largest factor by which the numbers of missed samples of a point, over all its probes, can change
the odds between two fit curves."""
_TINY = 1e-30
_PER_PRODUCT = 8


def split_for_products(count: int) -> list[Ints]:
    """Split the indices of ``count`` probes into short parts; return at least one part.

    The probabilities of the probes of a part are multiplied before the logarithm of their product
    is taken. This saves logarithms, which dominate the run time.
    """
    return np.array_split(np.arange(count), -(-count // _PER_PRODUCT) or 1)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Finished probes as arrays.

    Attributes:
        fit_n: distinct values of log n among the fits.
        fit_counts: number of fits at each value of ``fit_n``.
        fail_n: log n of each failure.
        missed_lo, missed_hi: log(m - 1/2) and log(m + 1/2) of each failure, where m is the number
            of missed samples; -inf and inf if m is unknown. If m = n, missed_hi is inf.
        broad: for each failure, the probability of m under a log-uniform distribution.
        lapsed: for each failure, the probability of m if the failure is a lapse.
    """

    fit_n: Floats
    fit_counts: Floats
    fail_n: Floats
    missed_lo: Floats
    missed_hi: Floats
    broad: Floats
    lapsed: Floats

    @classmethod
    def from_history(cls, history: History, eps: float | None) -> Evidence:
        """Convert a history to arrays.

        If ``eps`` is set, probes with at most this training error count as fits, and the numbers of
        missed samples are treated as unknown.
        """
        fits = [r.n for r in history if r.fits_at(eps)]
        fails = [_failure_columns(r, use_missed=eps is None) for r in history if not r.fits_at(eps)]
        ns, counts = np.unique(fits, return_counts=True)
        columns = np.array(fails, dtype=np.float64).reshape(-1, 5).T
        return cls(
            fit_n=np.log(ns.astype(np.float64)),
            fit_counts=counts.astype(np.float64),
            fail_n=columns[0],
            missed_lo=columns[1],
            missed_hi=columns[2],
            broad=columns[3],
            lapsed=columns[4],
        )

    @property
    def has_missed_counts(self) -> bool:
        """Whether at least one failure has a known number of missed samples that is below n."""
        return bool(np.isfinite(self.missed_hi).any())

    def verdict_log_likelihood(self, threshold: Floats, width: Floats, lapse: Floats) -> Floats:
        """Return the log-likelihood of the verdicts for each fit curve, up to a constant.

        Args:
            threshold, width, lapse: parameters of the fit curves, as in
                :class:`flexhpc.search.fit_curve.FitCurve`; their shapes must be broadcastable. The
                result has the broadcast shape.
        """
        rate, cells = lapse[..., None], threshold[..., None]
        z = (cells - self.fit_n) / width[..., None]
        total = log_expit(z) @ self.fit_counts + np.log1p(-lapse) * self.fit_counts.sum()
        for part in split_for_products(len(self.fail_n)):
            chance = expit((self.fail_n[part] - cells) / width[..., None])
            total = total + np.log((rate + (1 - rate) * chance + _TINY).prod(axis=-1))
        return np.asarray(total)

    def missed_log_likelihood(
        self, threshold: Floats, width: Floats, curve_index: Ints, lapse: Floats
    ) -> Floats:
        """Return the log-likelihood of the numbers of missed samples given the verdicts.

        A misspecified model of these numbers must not outweigh the verdicts. Therefore the result
        changes the odds between two curves by a factor of at most ``MAX_COUNT_FACTOR``.

        Args:
            threshold, width: parameters (log n) of each distinct curve, without its lapse rate;
                shape (curves,).
            curve_index: for each cell of the posterior, the index of its curve, shape (cells,).
            lapse: for each cell, the lapse rate, shape (cells,).

        Returns:
            Log-likelihood for each cell, up to a constant, shape (cells,).
        """
        cells, rate = len(curve_index), lapse[:, None]
        with_counts, verdicts = np.zeros((cells, len(PAIR_PRIOR))), np.zeros(cells)
        for part in split_for_products(len(self.fail_n)):
            likelihood, fails = np.ones((cells, len(PAIR_PRIOR))), np.ones(cells)
            for i in part:
                x = (self.fail_n[i] - threshold) / width
                chance = expit(x)
                onset = ONSETS + RELATIVE_ONSET * self.fail_n[i]
                low, high = (
                    np.maximum((edge[i] - onset) / SPREADS, 0.0)
                    for edge in (self.missed_lo, self.missed_hi)
                )
                inside = expit(high - x[:, None]) - expit(low - x[:, None])
                broad = UNEXPLAINED * self.broad[i] * chance
                failed = (1 - UNEXPLAINED) * inside + broad[:, None]
                likelihood *= rate * self.lapsed[i] + (1 - rate) * failed[curve_index] + _TINY
                fails *= lapse + (1 - lapse) * chance[curve_index] + _TINY
            with_counts += np.log(likelihood)
            verdicts += np.log(fails)
        peak = with_counts.max(axis=-1, keepdims=True)
        ratio = np.log(np.exp(with_counts - peak) @ PAIR_PRIOR) + peak[..., 0] - verdicts
        # The constant bounds the factor by which the ratio shifts odds.
        floor = 1 / MAX_COUNT_FACTOR
        return np.asarray(np.log((1 - floor) * np.exp(ratio - ratio.max()) + floor))


def _failure_columns(
    result: ProbeResult, *, use_missed: bool
) -> tuple[float, float, float, float, float]:
    """Return (fail_n, missed_lo, missed_hi, broad, lapsed) of one failure; see :class:`Evidence`.

    If ``use_missed`` is False, the number of missed samples is treated as unknown.
    """
    n, missed = result.n, result.n_errors
    if not use_missed or missed < 1 or result.verdict in UNINFORMATIVE:
        return math.log(n), -math.inf, math.inf, 1.0, 1.0
    low, high = math.log(missed - 0.5), math.log(missed + 0.5)
    broad = (high - low) / math.log(2 * n + 1)
    few = (n + 1) / n / (missed * (missed + 1))
    lapsed = FEW_MISSED * few + (1 - FEW_MISSED) * broad
    return math.log(n), low, math.inf if missed >= n else high, broad, lapsed
