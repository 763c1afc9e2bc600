"""Tuned keys: one posterior per arm with a common prior, and what they say of the best arm.

An arm is one combination of values. Arms close to each other have similar EMCs, so a Gaussian
process over their coordinates says of each what the others make likely. It says where to look and
which arm is the best; the interval of an EMC rests on the probes of its own arm alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flexhpc.search.evidence import Floats
from flexhpc.search.fit_curve import (
    WIDTH_MIDDLE,
    WIDTH_PRIOR,
    WIDTH_SPREAD,
    WIDTHS,
    FitCurve,
    posterior,
)
from flexhpc.search.history import History

Coordinates = Sequence[Sequence[float]]
"""Of each arm, per tuned key: its place on a scale on which neighbours are about 1 apart."""
ALONE: Coordinates = ((),)
"""Of a point that tunes nothing."""
_LEVEL_SD, _ARM_SD, _OWN_SD = 3.0, 2.0, 0.2
"""Deviations in log n: of all arms together, between distant arms, and of each by itself."""
_REACH = 2.5
_TRUST = 0.9
"""Chance that an arm lies where the others say."""
_ELSEWHERE = 1 / 12
"""Density of its threshold if it does not (per unit of log n)."""
_WIDTH_SD = 0.35
"""Deviation of an arm's log width from that of all arms."""
_DRAWS = 960


@dataclass(frozen=True, kw_only=True)
class Contest:
    """What is known of every arm, as joint draws that weigh the same.

    Attributes:
        own: per arm, what its own probes say; from the others' it has the prior of the width alone.
        curves: per arm, each with ``draws`` cells; draw number i is cell i of every curve.
        level: log n at the level of the estimand, within what there is, shape (draws, arms).
        tried: whether an arm has any probes, shape (arms,).
    """

    own: Sequence[FitCurve]
    curves: Sequence[FitCurve]
    level: Floats
    tried: Sequence[bool]

    @property
    def best(self) -> int:
        """The arm with the largest mean log EMC, among those that were tried."""
        mean = np.where(self.tried, self.level.mean(axis=0), -math.inf)
        return int(np.argmax(mean))

    @property
    def best_chance(self) -> float:
        """The chance that this arm is the best one."""
        return float(np.mean(self.level.argmax(axis=1) == self.best))

    @property
    def regret(self) -> float:
        """By how much the best arm is expected to lie above the one that seems best (log n)."""
        return float((self.level.max(axis=1) - self.level[:, self.best]).mean())


def contest(history: History, n_limit: int, q: float, coordinates: Coordinates) -> Contest:
    """Return what probes of several arms say together.

    Args:
        history: finished probes of all arms; n_limit: largest n there is (samples).
        q: level of the estimand; coordinates: of the arms.
    """
    each = [[r for r in history if r.arm == arm] for arm in range(len(coordinates))]
    own = [posterior(some, n_limit) for some in each]
    tried = [bool(some) for some in each]
    own = _with_common_width(own)
    curves = []
    for arm, curve in enumerate(own):
        prior = _prior(own, tried, coordinates, arm)
        pooled = curve if prior is None else curve.reweighted(_log_weight(curve.threshold, *prior))
        order = np.random.default_rng(arm).permutation(_DRAWS)
        thin = pooled.thin(_DRAWS)
        curves.append(
            FitCurve(
                threshold=thin.threshold[order],
                width=thin.width[order],
                lapse=thin.lapse[order],
                weight=thin.weight,
            )
        )
    level = np.stack([np.log(curve.level_set(q)) for curve in curves], axis=1)
    # No arm is better than one that fits all there is, nor worse than one that fits nothing.
    level = np.clip(level, 0.0, math.log(n_limit))
    return Contest(own=own, curves=curves, level=level, tried=tried)


def _with_common_width(own: Sequence[FitCurve]) -> list[FitCurve]:
    """Return each arm's curve with a prior of its width that the other arms have told.

    Log widths scatter around one that all arms share; both are on the grid of widths.
    """
    log_widths = np.log(WIDTHS)
    spread = math.sqrt(WIDTH_SPREAD**2 - _WIDTH_SD**2)
    common = np.exp(-0.5 * ((log_widths - math.log(WIDTH_MIDDLE)) / spread) ** 2)
    given = np.exp(-0.5 * ((log_widths[:, None] - log_widths) / _WIDTH_SD) ** 2)
    given /= given.sum(axis=1, keepdims=True)
    places = [np.searchsorted(WIDTHS, curve.width) for curve in own]
    prior = np.exp(WIDTH_PRIOR) / np.exp(WIDTH_PRIOR).sum()
    likelihoods = [
        given @ (np.bincount(place, curve.weight, len(WIDTHS)) / prior)
        for place, curve in zip(places, own, strict=True)
    ]
    together = np.log(common) + np.log(likelihoods).sum(axis=0)
    curves = []
    for place, curve, alone in zip(places, own, likelihoods, strict=True):
        others = together - np.log(alone)
        others = np.exp(others - others.max())
        curves.append(curve.reweighted(np.log(others @ given / prior)[place]))
    return curves


def _prior(
    own: Sequence[FitCurve], tried: Sequence[bool], coordinates: Coordinates, arm: int
) -> tuple[float, float] | None:
    """Return where the other arms place the threshold of one: mean and deviation in log n."""
    others = [other for other in range(len(own)) if tried[other] and other != arm]
    if not others:
        return None
    moments = [_moments(own[other]) for other in others]
    mean = np.array([m for m, _ in moments])
    noise = np.array([s**2 for _, s in moments])
    places = np.array([coordinates[i] for i in (*others, arm)], dtype=np.float64)
    apart = np.square(places[:, None] - places[None]).sum(axis=2)
    cover = _LEVEL_SD**2 + _ARM_SD**2 * np.exp(-0.5 * apart / _REACH**2)
    inverse = np.linalg.inv(cover[:-1, :-1] + np.diag(noise + _OWN_SD**2))
    row = cover[-1, :-1]
    centre = float(np.average(mean, weights=1 / (noise + _OWN_SD**2)))
    expected = centre + float(row @ inverse @ (mean - centre))
    variance = cover[-1, -1] + _OWN_SD**2 - float(row @ inverse @ row)
    return expected, math.sqrt(variance)


def _moments(curve: FitCurve) -> tuple[float, float]:
    mean = float(curve.weight @ curve.threshold)
    return mean, math.sqrt(float(curve.weight @ (curve.threshold - mean) ** 2))


def _log_weight(threshold: Floats, centre: float, scale: float) -> Floats:
    z = (threshold - centre) / scale
    near = np.exp(-0.5 * z * z) / (scale * math.sqrt(2 * math.pi))
    return np.asarray(np.log(_TRUST * near + (1 - _TRUST) * _ELSEWHERE))
