"""What the trainings of a point say of its EMC, as a likelihood: censored EMCs are open-ended."""

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
"""Step of the grids below, in log n: a fifth of the narrowest intervals."""
LOG_EMC = np.arange(-16.0, 31.0, STEP)
"""Grid of log EMC: any that can be measured, times or over any ratio below."""
LOG_RATIO = np.arange(-12.0, 12.0 + STEP / 2, STEP)
"""Grid of the log of a ratio of two EMCs: to 160,000, and its inverse."""
_BELOW, _ABOVE = math.log(1 / 4), math.log(1.5)
"""From where on a posterior is its prior: log n, and log of n over the samples that there are."""
_OPEN = 0.2
"""Part of the largest likelihood from which an end counts as open."""
_SILENT = 0.005
"""Product of two likelihoods at an end from which their ratio is not known."""


def likelihood_of(status: PointStatus) -> Floats:
    """Return the likelihood of log EMC on :data:`LOG_EMC`, (cells,), at most 1.

    The prior of the fit curve is uniform in log n, from an eighth of a sample to four times the
    samples that there are, so its posterior is a likelihood but for a factor. Where the data do not
    end it, whatever lies beyond is as likely as what lies there.
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
    """Return whether a likelihood says nothing of how small, and how large, a value may be."""
    return bool(likelihood[0] > _OPEN), bool(likelihood[-1] > _OPEN)


def of_ratio(above: Floats, below: Floats) -> Floats | None:
    """Return the likelihood of the log ratio of two EMCs on :data:`LOG_RATIO`, at most 1.

    None where both are bounds on the same side, or all but: their ratio may be anything.

    Args:
        above, below: likelihoods of the two log EMCs.
    """
    if max(above[0] * below[0], above[-1] * below[-1]) > _SILENT:
        return None
    both = np.correlate(above, below, mode="full")
    middle, reach = len(below) - 1, len(LOG_RATIO) // 2
    ratio = both[middle - reach : middle + reach + 1]
    return np.asarray(ratio / ratio.max())


def blurred(likelihoods: Floats, deviation: float) -> Floats:
    """Return likelihoods of means about which values scatter normally, on the same grid.

    Args:
        likelihoods: of values, (..., cells); deviation: of the scatter, in log n.
    """
    if deviation < STEP / 2:
        return likelihoods
    return np.asarray(
        gaussian_filter1d(likelihoods, deviation / STEP, axis=-1, mode="nearest", truncate=5)
    )


def stacked(likelihoods: Sequence[Floats]) -> Floats:
    """Return likelihoods as an array; what is all but impossible is only very unlikely.

    No measurement is sure of its own tails.
    """
    return np.maximum(np.array(likelihoods), 1e-6)
