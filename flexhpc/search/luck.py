"""Sampling distribution of the growth policy's result over repeated runs."""

from __future__ import annotations

import numpy as np
from scipy.stats import binom

from flexhpc.config.sections.search import Growth
from flexhpc.search.fit_curve import FitCurve
from flexhpc.search.walk import ladder

_CURVES = 200


def interval_of_a_rule(
    curve: FitCurve, search: Growth, n_limit: int, levels: tuple[float, float]
) -> tuple[float, float]:
    """Return quantiles (samples) of the n at which a repeated run of the growth policy would end.

    The last n before the first failure is random. Given a fit curve its distribution is exact,
    P(last = n_i) = p_1 ... p_i (1 - p_(i+1)), where p_i is the probability that n_i passes its
    quorum; it is averaged over the posterior of the fit curve.

    Args:
        curve: posterior of the fit curve.
        search: settings of the growth policy.
        n_limit: largest available n (samples).
        levels: probabilities of the two quantiles, in (0, 1).
    """
    rungs = ladder(search.start, search.growth, n_limit)
    needed = search.seeds_per_n // 2 + 1
    total = np.zeros(len(rungs) + 1)
    ns = np.array(rungs, dtype=np.float64)
    thinned = curve.thin(_CURVES)
    for cell in range(_CURVES):
        one = FitCurve(
            threshold=thinned.threshold[[cell]],
            width=thinned.width[[cell]],
            lapse=thinned.lapse[[cell]],
            weight=np.ones(1),
        )
        chance = one.chance(ns)[0]
        passes = binom.sf(needed - 1, 2 * needed - 1, chance)
        survival = np.concatenate(([1.0], np.cumprod(passes)))
        total += survival - np.concatenate((survival[1:], [0.0]))
    below = np.cumsum(total) / total.sum()
    ends = np.concatenate(([0.0], ns))
    lower, upper = (float(ends[np.searchsorted(below, level)]) for level in levels)
    return lower, upper
