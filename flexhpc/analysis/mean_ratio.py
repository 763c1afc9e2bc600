"""Posterior of the mean log ratio of EMCs over the measured sizes, including seed variation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flexhpc.analysis.likelihood import LOG_RATIO, STEP, Floats, blurred, is_open, stacked

SAME = 0.1
"""Two EMCs count as the same if their ratio lies between 1 / 1.1 and 1.1."""
_SCATTERS = np.array([0.0, 0.02, 0.04, 0.06, 0.09, 0.13, 0.18, 0.25, 0.35, 0.5, 0.7, 1.0])
_USUAL_SCATTER = 0.2
"""Grid of the standard deviation of log ratios between seeds, and the scale of its half-normal
prior."""
_DRAWS = 20_000


@dataclass(frozen=True, kw_only=True)
class MeanRatio:
    """A geometric mean of ratios.

    Attributes:
        ratio: posterior median, nan where an end is open; low, high: the interval, None where it is
            open.
        chance: probability that the ratio is above 1; same: that it is within 10 % of 1.
        scatter: posterior mean of the standard deviation of the log ratio between seeds, beyond the
            uncertainty of the single EMCs.
        singles: posterior median of the ratio of each size, nan where it is a bound.
    """

    ratio: float
    low: float | None
    high: float | None
    chance: float
    same: float
    scatter: float
    singles: tuple[float, ...]


def mean_ratio(sizes: Sequence[Sequence[Floats]], level: float) -> MeanRatio:
    """Return the mean over sizes of the expected log ratio over seeds.

    Sizes are a fixed effect, so differences of the ratio between them do not widen the interval;
    seeds are a random effect. If a size has only bounds, the draws of its ratio are draws of the
    bound, so that the mean is a bound as well.

    Args:
        sizes: for each size, the likelihood of the log ratio of each seed on ``LOG_RATIO``.
        level: probability of the interval.
    """
    products = [stacked(some) for some in sizes]
    single = sum(map(len, products)) == 1  # a single pair cannot determine the seed scatter
    scatters = _SCATTERS[:1] if single else _SCATTERS
    logs = np.array([
        [np.log(blurred(product, scatter)).sum(axis=0) for product in products]
        for scatter in scatters
    ])  # fmt: skip
    likelihoods = np.exp(logs - logs.max(axis=2, keepdims=True))
    ends = [is_open(one) for one in likelihoods[0]]
    evidence = (np.log(likelihoods.sum(axis=2)) + logs.max(axis=2)).sum(axis=1)
    if not single:
        evidence += np.log(np.gradient(scatters)) - 0.5 * (scatters / _USUAL_SCATTER) ** 2
    weights = np.exp(evidence - evidence.max())
    weights /= weights.sum()
    of_sizes = _drawn(likelihoods, ends, weights)
    drawn = of_sizes.mean(axis=0)
    open_below, open_above = (any(end[side] for end in ends) for side in (0, 1))
    low, middle, high = np.exp(np.quantile(drawn, [(1 - level) / 2, 0.5, (1 + level) / 2]))
    closed = not open_below and not open_above
    within = np.abs(drawn) <= math.log1p(SAME)
    medians = [
        math.nan if any(end) else float(np.exp(np.median(one)))
        for one, end in zip(of_sizes, ends, strict=True)
    ]
    return MeanRatio(
        ratio=float(middle) if closed else math.nan,
        low=None if open_below else float(low),
        high=None if open_above else float(high),
        chance=0.5 if open_below and open_above else _share(int((drawn > 0).sum())),
        same=float(within.mean()) if closed else 0.0,
        scatter=float(weights @ scatters),
        singles=tuple(medians),
    )


def _share(count: int) -> float:
    """Estimate a probability from a number of draws; a finite number never gives 0 or 1."""
    return (count + 0.5) / (_DRAWS + 1)


def _drawn(likelihoods: Floats, ends: Sequence[tuple[bool, bool]], weights: Floats) -> Floats:
    """Draw the log ratio of each size from its posterior.

    Args:
        likelihoods: shape (scatters, sizes, cells).
        ends: for each size, whether its likelihood is open below and above.
        weights: posterior probability of each scatter, (scatters,).

    Returns:
        Draws of shape (sizes, draws).
    """
    random = np.random.default_rng(0)
    counts = random.multinomial(_DRAWS, weights)
    parts = [
        [
            LOG_RATIO[random.choice(likelihoods.shape[2], count, p=_bound_of(likelihood, end))]
            for likelihood, end in zip(of_scatter, ends, strict=True)
        ]
        for of_scatter, count in zip(likelihoods, counts, strict=True)
    ]
    drawn = np.concatenate([np.array(part) for part in parts], axis=1)
    return np.asarray(drawn + random.uniform(-STEP / 2, STEP / 2, drawn.shape))


def _bound_of(likelihood: Floats, end: tuple[bool, bool]) -> Floats:
    """Return the probability of each cell; for a half-open likelihood, that of the bound.

    The bound of a half-open likelihood lies where it rises towards its open end.
    """
    open_below, open_above = end
    if open_above and not open_below:
        likelihood = np.maximum(np.diff(likelihood, prepend=0.0), 0.0)
    elif open_below and not open_above:
        likelihood = np.maximum(-np.diff(likelihood, append=0.0), 0.0)
    return np.asarray(likelihood / likelihood.sum())
