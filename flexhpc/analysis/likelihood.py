"""Likelihood of the EMC of a point given its trainings; open-ended if the EMC is censored."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from flexhpc.search.fit_curve import posterior, quantile_of
from flexhpc.store.status import PointStatus

Floats = NDArray[np.float64]
STEP = 0.02
"""Step of the grids below, in log n: a fifth of the width of the narrowest intervals."""
LOG_EMC = np.arange(-16.0, 31.0, STEP)
"""Grid of log EMC: covers all measurable EMCs, multiplied or divided by any ratio below."""
LOG_RATIO = np.arange(-12.0, 12.0 + STEP / 2, STEP)
"""Grid of the log ratio of two EMCs: ratios from 1 / 160,000 to 160,000."""
_BELOW, _ABOVE = math.log(1 / 4), math.log(1.5)
"""Limits beyond which a posterior equals its prior: the lower one in log n, the upper one in
log(n / number of samples)."""
_OPEN = 0.2
"""Fraction of the maximum likelihood above which an end counts as open."""
_SILENT = 0.005
"""Product of two likelihoods at an end above which their ratio counts as unknown."""


def likelihood_of(status: PointStatus) -> Floats:
    """Return the likelihood of log EMC on :data:`LOG_EMC`, shape (cells,), with maximum 1.

    The prior of the fit curve is uniform in log n, from an eighth of a sample to four times the
    number of samples, so its posterior is proportional to the likelihood. Where the data do not
    bound the EMC, the likelihood is continued as a constant beyond that range.
    """
    assert status.record is not None
    assert status.estimate is not None
    n_limit = status.record.header.n_limit
    curve = posterior(status.history, n_limit)
    level = curve.level_set(quantile_of(status.estimate.estimand))
    places = np.log(np.maximum(level, math.exp(LOG_EMC[0])))
    at = np.clip((places - LOG_EMC[0]) / STEP, 0, len(LOG_EMC) - 1.001)
    left, part = at.astype(int), at % 1
    density = np.bincount(left, curve.weight * (1 - part), len(LOG_EMC))
    density += np.bincount(left + 1, curve.weight * part, len(LOG_EMC))
    density = gaussian_filter1d(density, 1.0)
    density = np.asarray(density / density.max())
    last = math.log(n_limit)
    for end, inner in (
        (LOG_EMC < _BELOW, (LOG_EMC >= _BELOW) & (LOG_EMC < _BELOW + 0.5)),
        (last + _ABOVE < LOG_EMC, (last + _ABOVE < LOG_EMC) & (last + 2 * _ABOVE > LOG_EMC)),
    ):
        if (beyond := float(density[inner].mean())) > _OPEN:
            density[end] = beyond
    return np.asarray(density / density.max())


def is_open(likelihood: Floats) -> tuple[bool, bool]:
    """Return whether a likelihood is open (unbounded) at its lower and at its upper end."""
    return bool(likelihood[0] > _OPEN), bool(likelihood[-1] > _OPEN)


def of_ratio(above: Floats, below: Floats) -> Floats | None:
    """Return the likelihood of the log ratio of two EMCs on :data:`LOG_RATIO`, with maximum 1.

    None where both are (nearly) open at the same end, as their ratio may then have any value.

    Args:
        above, below: likelihoods of log EMC of the numerator and of the denominator, (cells,).
    """
    if max(above[0] * below[0], above[-1] * below[-1]) > _SILENT:
        return None
    both = np.correlate(above, below, mode="full")
    middle, reach = len(below) - 1, len(LOG_RATIO) // 2
    ratio = both[middle - reach : middle + reach + 1]
    return np.asarray(ratio / ratio.max())


def blurred(likelihoods: Floats, deviation: float) -> Floats:
    """Return the likelihoods of the means around which values are normally distributed.

    Args:
        likelihoods: likelihoods of the values, (..., cells).
        deviation: standard deviation of the values around their mean, in log n.

    Returns:
        Likelihoods on the same grid, (..., cells).
    """
    if deviation < STEP / 2:
        return likelihoods
    return np.asarray(
        gaussian_filter1d(likelihoods, deviation / STEP, axis=-1, mode="nearest", truncate=5)
    )


def stacked(likelihoods: Sequence[Floats]) -> Floats:
    """Stack likelihoods into an array (likelihoods, cells), with a floor of 1e-6.

    The floor accounts for the tails of a measured likelihood being uncertain themselves.
    """
    return np.maximum(np.array(likelihoods), 1e-6)
