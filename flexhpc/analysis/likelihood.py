"""Likelihood of a point's EMC given its training runs, and posterior of the mean ratio of two EMCs.

The likelihood of a censored EMC does not decrease to 0 at one end; it is called open at this end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from flexhpc.search.budget_curve import budget_curve
from flexhpc.search.fit_curve import FitCurve, estimand_level, posterior
from flexhpc.search.history import TAILS, Floats
from flexhpc.store.status import PointStatus

STEP = 0.02
"""Step of the grids of log EMC and log ratio. The narrowest intervals of EMCs span five steps."""
LOG_EMC = np.arange(-16.0, 31.0, STEP)
"""Grid of log EMC. It contains the product of any measurable EMC and any ratio of ``LOG_RATIO``."""
LOG_RATIO = np.arange(-12.0, 12.0 + STEP / 2, STEP)
"""Grid of the log ratio of two EMCs: ratios from 1 / 160,000 to 160,000."""
_PRIOR_LOW, _PRIOR_HIGH = math.log(1 / 4), math.log(1.5)
"""Range of n in which training runs can bound the EMC: lower limit of log n, and upper limit of
log(n / number of available samples)."""
_OPEN_THRESHOLD = 0.2
"""A likelihood is open at an end of its grid if its value at this end exceeds this fraction of its
maximum."""
_UNKNOWN_THRESHOLD = 0.005
"""The ratio of two EMCs is unknown if the product of their likelihoods exceeds this value at the
lower or at the upper end of the grid."""
SAME_MARGIN = 0.1
"""Default margin: two EMCs are the same if their ratio lies between 1 / 1.1 and 1.1."""
_SCATTERS = np.array([0.0, 0.02, 0.04, 0.06, 0.09, 0.13, 0.18, 0.25, 0.35, 0.5, 0.7, 1.0])
_USUAL_SCATTER = 0.2
"""Standard deviation between seeds of the log ratio: grid of values, and scale of the half-normal
prior."""
_DRAWS = 20_000


def likelihood_of(status: PointStatus) -> Floats:
    """Return the likelihood of log EMC on the grid ``LOG_EMC``, shape (cells,), with maximum 1.

    The prior is uniform in log n, so the posterior is proportional to the likelihood. If training
    runs do not bound the EMC on one side, the likelihood is constant on this side: below 1/4
    sample, or above 1.5 times the number of available samples.

    Args:
        status: a point with an estimate.
    """
    assert status.record is not None
    return _likelihood_from_curve(status, posterior(status.history, status.record.header.n_limit))


def likelihood_at_budget(status: PointStatus, factor: float) -> Floats | None:
    """Return the likelihood of log EMC at ``factor`` times the budget; see :func:`likelihood_of`.

    Return None if the EMC at this budget is unknown; see :mod:`flexhpc.search.budget_curve`.
    """
    if factor == 1:
        return likelihood_of(status)
    assert status.record is not None
    curve = budget_curve(status.history, status.record.header.n_limit)
    if curve is None or factor < curve.smallest_factor:
        return None
    return _likelihood_from_curve(status, curve.fit_curve_at(factor))


def _likelihood_from_curve(status: PointStatus, curve: FitCurve) -> Floats:
    """Compute the likelihood of log EMC from the posterior of the fit curve, shape (cells,)."""
    assert status.record is not None
    assert status.estimate is not None
    emcs = curve.n_at_fit_probability(estimand_level(status.estimate.estimand))
    log_emcs = np.log(np.maximum(emcs, math.exp(LOG_EMC[0])))
    cell = np.clip((log_emcs - LOG_EMC[0]) / STEP, 0, len(LOG_EMC) - 1.001)
    left, part = cell.astype(int), cell % 1
    density = np.bincount(left, curve.weight * (1 - part), len(LOG_EMC))
    density += np.bincount(left + 1, curve.weight * part, len(LOG_EMC))
    density = gaussian_filter1d(density, 1.0)
    density = np.asarray(density / density.max())
    high = math.log(status.record.header.n_limit) + _PRIOR_HIGH
    below, above = LOG_EMC < _PRIOR_LOW, high < LOG_EMC
    for end, near_end in (
        (below, ~below & (LOG_EMC < _PRIOR_LOW + 0.5)),
        (above, above & (high + _PRIOR_HIGH > LOG_EMC)),
    ):
        likelihood_at_end = float(density[near_end].mean())
        if likelihood_at_end > _OPEN_THRESHOLD:
            density[end] = likelihood_at_end
    return np.asarray(density / density.max())


def open_ends(likelihood: Floats) -> tuple[bool, bool]:
    """Return two booleans: whether a likelihood is open at its lower end, and at its upper end.

    A likelihood is open at an end if it does not decrease to 0 there.
    """
    return bool(likelihood[0] > _OPEN_THRESHOLD), bool(likelihood[-1] > _OPEN_THRESHOLD)


def ratio_likelihood(numerator: Floats, denominator: Floats) -> Floats | None:
    """Return the likelihood of the log ratio of two EMCs on :data:`LOG_RATIO`, with maximum 1.

    Return None if both likelihoods are (nearly) open at the same end, because the ratio of the EMCs
    can then have any value.

    Args:
        numerator, denominator: likelihoods of log EMC on ``LOG_EMC``, (cells,).
    """
    if max(numerator[0] * denominator[0], numerator[-1] * denominator[-1]) > _UNKNOWN_THRESHOLD:
        return None
    correlation = np.correlate(numerator, denominator, mode="full")
    middle, half_width = len(denominator) - 1, len(LOG_RATIO) // 2
    ratio = correlation[middle - half_width : middle + half_width + 1]
    return np.asarray(ratio / ratio.max())


def convolve_with_normal(likelihoods: Floats, deviation: float) -> Floats:
    """Convolve likelihoods with a normal distribution.

    This converts the likelihood of a value that is normally distributed around a mean into a
    likelihood of the mean.

    Args:
        likelihoods: likelihoods of the values, (..., cells).
        deviation: standard deviation of the normal distribution, in log n.

    Returns:
        Likelihoods on the same grid, (..., cells).
    """
    if deviation < STEP / 2:
        return likelihoods
    return np.asarray(
        gaussian_filter1d(likelihoods, deviation / STEP, axis=-1, mode="nearest", truncate=5)
    )


def stack_likelihoods(likelihoods: Sequence[Floats]) -> Floats:
    """Stack likelihoods into an array of shape (likelihoods, cells), with all values at least 1e-6.

    The lower limit is used because the tails of a likelihood are uncertain.
    """
    return np.maximum(np.array(likelihoods), 1e-6)


@dataclass(frozen=True, kw_only=True)
class MeanRatio:
    """Geometric mean, over the measured network sizes, of the ratio of two EMCs.

    Attributes:
        ratio: posterior median of the mean; nan if an end of its interval is open.
        low, high: ends of the interval of the mean; None for an open end.
        chance_larger: probability that the mean is above 1.
        chance_same: probability that the mean differs from 1 by at most the margin; 0 if an end of
            the interval is open.
        scatter: posterior mean of the standard deviation between seeds of the log ratio. It does
            not include the uncertainty of each EMC.
        size_ratios: posterior median of the ratio at each network size, in the order of the sizes;
            nan if this ratio is a bound.
    """

    ratio: float = math.nan
    low: float | None = None
    high: float | None = None
    chance_larger: float = 0.5
    chance_same: float = 0.0
    scatter: float = 0.0
    size_ratios: tuple[float, ...] = ()


def mean_ratio(
    likelihoods_by_size: Sequence[Sequence[Floats]], margin: float = SAME_MARGIN
) -> MeanRatio:
    """Estimate the geometric mean, over network sizes and seeds, of the ratio of two EMCs.

    Seeds are a random effect. Sizes are a fixed effect, so differences between the ratios at
    different sizes do not widen the interval. If all ratios at a size are bounds, a bound is drawn
    for this size instead of a ratio, so that the mean is a bound as well.

    Args:
        likelihoods_by_size: for each size and seed, the likelihood of the log ratio on
            ``LOG_RATIO``, (cells,).
        margin: largest relative difference at which two EMCs count as the same.
    """
    products = [stack_likelihoods(ratios) for ratios in likelihoods_by_size]
    single = sum(map(len, products)) == 1  # one pair does not determine the scatter between seeds
    scatters = _SCATTERS[:1] if single else _SCATTERS
    logs = np.array([
        [np.log(convolve_with_normal(product, scatter)).sum(axis=0) for product in products]
        for scatter in scatters
    ])  # fmt: skip
    likelihoods = np.exp(logs - logs.max(axis=2, keepdims=True))
    ends = [open_ends(likelihood) for likelihood in likelihoods[0]]
    evidence = (np.log(likelihoods.sum(axis=2)) + logs.max(axis=2)).sum(axis=1)
    if not single:
        evidence += np.log(np.gradient(scatters)) - 0.5 * (scatters / _USUAL_SCATTER) ** 2
    weights = np.exp(evidence - evidence.max())
    weights /= weights.sum()
    by_size = _draw_log_ratios(likelihoods, ends, weights)
    drawn = by_size.mean(axis=0)
    open_below, open_above = (any(end[side] for end in ends) for side in (0, 1))
    low, middle, high = np.exp(np.quantile(drawn, TAILS))
    closed = not open_below and not open_above
    within = np.abs(drawn) <= math.log1p(margin)
    chance_larger = ((drawn > 0).sum() + 0.5) / (_DRAWS + 1)  # never exactly 0 or 1
    medians = [
        math.nan if any(end) else float(np.exp(np.median(draws)))
        for draws, end in zip(by_size, ends, strict=True)
    ]
    return MeanRatio(
        ratio=float(middle) if closed else math.nan,
        low=None if open_below else float(low),
        high=None if open_above else float(high),
        chance_larger=0.5 if open_below and open_above else float(chance_larger),
        chance_same=float(within.mean()) if closed else 0.0,
        scatter=float(weights @ scatters),
        size_ratios=tuple(medians),
    )


def _draw_log_ratios(
    likelihoods: Floats, ends: Sequence[tuple[bool, bool]], weights: Floats
) -> Floats:
    """Draw from the posterior of the log ratio at each network size.

    Args:
        likelihoods: likelihood of the log ratio for each value of ``_SCATTERS`` and each size,
            (scatters, sizes, cells).
        ends: result of :func:`open_ends` for the likelihood of each size.
        weights: posterior probability of each value of ``_SCATTERS``, (scatters,).

    Returns:
        Log ratios of shape (sizes, draws).
    """
    random = np.random.default_rng(0)
    counts = random.multinomial(_DRAWS, weights)
    parts = [
        [
            LOG_RATIO[random.choice(likelihoods.shape[2], count, p=_cell_chances(likelihood, end))]
            for likelihood, end in zip(of_scatter, ends, strict=True)
        ]
        for of_scatter, count in zip(likelihoods, counts, strict=True)
    ]
    drawn = np.concatenate([np.array(part) for part in parts], axis=1)
    return np.asarray(drawn + random.uniform(-STEP / 2, STEP / 2, drawn.shape))


def _cell_chances(likelihood: Floats, is_open: tuple[bool, bool]) -> Floats:
    """Return, for each cell of ``LOG_RATIO``, the probability that it contains the log ratio.

    If the likelihood is open at one end, the log ratio is only known to be above or below a bound.
    Then return the probability that a cell contains this bound. The probability is proportional to
    the slope of the likelihood towards the open end.

    Args:
        likelihood: likelihood of the log ratio at one network size, (cells,).
        is_open: result of :func:`open_ends` for the likelihood.

    Returns:
        The probabilities, (cells,).
    """
    open_below, open_above = is_open
    if open_above and not open_below:
        likelihood = np.maximum(np.diff(likelihood, prepend=0.0), 0.0)
    elif open_below and not open_above:
        likelihood = np.maximum(-np.diff(likelihood, append=0.0), 0.0)
    return np.asarray(likelihood / likelihood.sum())
