"""The mean of log ratios over the sizes at hand, for any seeds: what pairs of EMCs say of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flexhpc.analysis.likelihood import LOG_RATIO, STEP, Floats, blurred, is_open, stacked

SAME = 0.1
"""Two EMCs count as the same if their ratio is below 1.1 and above 1 / 1.1."""
_SCATTERS = np.array([0.0, 0.02, 0.04, 0.06, 0.09, 0.13, 0.18, 0.25, 0.35, 0.5, 0.7, 1.0])
_USUAL_SCATTER = 0.2
"""Scatter of log ratios between seeds: its grid, and the scale of its half-normal prior."""
_DRAWS = 20_000


@dataclass(frozen=True, kw_only=True)
class MeanRatio:
    """A geometric mean of ratios.

    Attributes:
        ratio: the posterior median, nan where an end is open; low, high: the interval, None where
            it is open.
        chance: the probability that it is above 1; same: that it is within 10 % of 1.
        scatter: deviation of the log ratio from seed to seed, beyond what intervals explain.
        singles: medians of the single ones, in their order, nan where these are bounds.
    """

    ratio: float
    low: float | None
    high: float | None
    chance: float
    same: float
    scatter: float
    singles: tuple[float, ...]


def mean_ratio(sizes: Sequence[Sequence[Floats]], level: float) -> MeanRatio:
    """Return the mean over sizes of the log ratio that seeds scatter about.

    Sizes are those that were measured, so how far ratios differ between them is no uncertainty;
    seeds could have been others. Where a size has bounds only, draws of its ratio are draws of the
    bound, which makes the mean one.

    Args:
        sizes: likelihoods of log ratios on ``LOG_RATIO``, of each seed, for each size.
        level: of the interval.
    """
    products = [stacked(some) for some in sizes]
    single = sum(map(len, products)) == 1  # says nothing of how seeds scatter
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
    """Return a probability from draws, which are never sure."""
    return (count + 0.5) / (_DRAWS + 1)


def _drawn(likelihoods: Floats, ends: Sequence[tuple[bool, bool]], weights: Floats) -> Floats:
    """Draw the log ratio of each size, (sizes, draws); likelihoods are (scatters, sizes, cells)."""
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
    """Return probabilities of the cells: where an end is open, of where the likelihood rises."""
    open_below, open_above = end
    if open_above and not open_below:
        likelihood = np.maximum(np.diff(likelihood, prepend=0.0), 0.0)
    elif open_below and not open_above:
        likelihood = np.maximum(-np.diff(likelihood, append=0.0), 0.0)
    return np.asarray(likelihood / likelihood.sum())
