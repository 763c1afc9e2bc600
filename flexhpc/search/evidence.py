"""What finished probes say about the fit curve: log-likelihoods over grids of curves.

A probe's latent hardness is u = (log n - threshold) / width + noise, the noise logistic; the probe
fits where u < 0. Besides the verdict, the samples that a failing probe missed are used:
log(missed) = onset + spread * u, seen to half a sample. Onset and spread differ from model to model
and are free: at the threshold a few samples, or a share of all where a network that does not fit is
much worse at once. With a spread of nearly 0 the count says nothing, as that of an exact solver.

A lapse, which fails at any n, misses either few samples or any number of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit

from flexhpc.search.history import UNTOLD, History, ProbeResult, passes

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

SPREADS = np.array([0.02, 0.02, 0.5, 0.5, 1.2, 1.2, 0.5, 1.2])
ONSETS = np.log([0.5, 3.0, 0.5, 3.0, 0.5, 3.0, 0.05, 0.05])
OF_ALL = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0])
"""1 where the onset is a share of all samples, 0 where it is a number of them."""
LAWS = np.array([0.19, 0.08, 0.25, 0.11, 0.19, 0.08, 0.05, 0.05])
"""Prior of these laws."""
UNEXPLAINED = 0.15
"""Share of failures whose count follows no such law."""
FEW = 0.2
"""Share of lapses that miss few samples, m of them with a chance of 1 / (m (m + 1))."""
MOST_OF_COUNTS = 50.0
"""Largest factor by which all counts of a point may shift the odds of two curves."""
_TINY = 1e-30
_PER_PRODUCT = 8
"""Chances that are multiplied before a logarithm is taken: it is what takes time."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Finished probes as arrays.

    Attributes:
        fit_n, fit_counts: distinct log n of the fits, and how many at each.
        fail_n: log n of each failure; missed_lo, missed_hi: log of the samples that it missed,
            minus and plus a half (infinite where unknown).
        broad: probability of that count if nothing is known of it; lapsed: if it is a lapse.
    """

    fit_n: Floats
    fit_counts: Floats
    fail_n: Floats
    missed_lo: Floats
    missed_hi: Floats
    broad: Floats
    lapsed: Floats

    @classmethod
    def of(cls, history: History, eps: float | None) -> Evidence:
        """Take in a history; with ``eps``, a training error that counts as a fit, its verdicts."""
        fitting = passes(eps)
        fits = [r for r in history if fitting(r)]
        fails = [_failure(r, counted=eps is None) for r in history if not fitting(r)]
        ns, counts = np.unique([r.n for r in fits], return_counts=True)
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
    def counts(self) -> bool:
        """Whether any failure's count of missed samples is known."""
        return bool(np.isfinite(self.missed_hi).any())

    def verdicts(self, threshold: Floats, width: Floats, lapse: Floats) -> Floats:
        """Return the log-likelihood of curves by their verdicts alone, up to a constant.

        Args:
            threshold: log n; width: in log n; lapse: rate; shapes that broadcast.
        """
        rate, cells = lapse[..., None], threshold[..., None]
        z = (cells - self.fit_n) / width[..., None]
        total = log_expit(z) @ self.fit_counts + np.log1p(-lapse) * self.fit_counts.sum()
        for some in np.array_split(self.fail_n, -(-len(self.fail_n) // _PER_PRODUCT) or 1):
            chance = expit((some - cells) / width[..., None])
            total = total + np.log((rate + (1 - rate) * chance + _TINY).prod(axis=-1))
        return np.asarray(total)

    def missed(self, place: Floats, width: Floats, of: Ints, lapse: Floats) -> Floats:
        """Return what the counts of missed samples add to :meth:`verdicts`, bounded.

        Args:
            place, width: thresholds and widths of curves without a lapse rate, shape (curves,).
            of: the curve of each cell, (cells,); lapse: the rate of each cell, (cells,).
        """
        cells, rate = len(of), lapse[:, None]
        joint, plain = np.zeros((cells, len(LAWS))), np.zeros(cells)
        for some in np.array_split(
            np.arange(len(self.fail_n)), -(-len(self.fail_n) // _PER_PRODUCT)
        ):
            likelihood, alone = np.ones((cells, len(LAWS))), np.ones(cells)
            for i in some:
                x = (self.fail_n[i] - place) / width
                chance = expit(x)
                onset = ONSETS + OF_ALL * self.fail_n[i]
                low, high = (
                    np.maximum((edge[i] - onset) / SPREADS, 0.0)
                    for edge in (self.missed_lo, self.missed_hi)
                )
                inside = expit(high - x[:, None]) - expit(low - x[:, None])
                broad = UNEXPLAINED * self.broad[i] * chance
                failed = (1 - UNEXPLAINED) * inside + broad[:, None]
                likelihood *= rate * self.lapsed[i] + (1 - rate) * failed[of] + _TINY
                alone *= lapse + (1 - lapse) * chance[of] + _TINY
            joint += np.log(likelihood)
            plain += np.log(alone)
        peak = joint.max(axis=-1, keepdims=True)
        both = np.log(np.exp(joint - peak) @ LAWS) + peak[..., 0]
        return _bounded(both - plain, MOST_OF_COUNTS)


def _bounded(log_likelihood: Floats, most: float) -> Floats:
    """Return a log-likelihood that can shift odds by a factor of ``most`` at most."""
    return np.asarray(
        np.log((1 - 1 / most) * np.exp(log_likelihood - log_likelihood.max()) + 1 / most)
    )


def _failure(result: ProbeResult, counted: bool) -> tuple[float, float, float, float, float]:
    """Return a failure's row of :class:`Evidence`: log n, missed (lo, hi), broad, lapsed."""
    n, missed = result.n, result.n_errors
    if not counted or missed < 1 or result.verdict in UNTOLD:
        return math.log(n), -math.inf, math.inf, 1.0, 1.0
    low, high = math.log(missed - 0.5), math.log(missed + 0.5)
    broad = (high - low) / math.log(2 * n + 1)
    few = (n + 1) / n / (missed * (missed + 1))
    lapsed = FEW * few + (1 - FEW) * broad
    return math.log(n), low, math.inf if missed >= n else high, broad, lapsed
