"""Joint posterior of all arms; an arm is one combination of values of the tuned keys.

Neighbouring arms have similar EMCs, so a Gaussian process over their coordinates predicts each
arm's threshold from the other arms. This prediction is used to choose probes and the best arm, but
not for the reported interval of an EMC.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flexhpc.search.fit_curve import (
    WIDTH_MIDDLE,
    WIDTH_PRIOR,
    WIDTH_SPREAD,
    WIDTHS,
    FitCurve,
    posterior,
)
from flexhpc.search.history import Floats, History

Coordinates = Sequence[Sequence[float]]
"""For each arm, one coordinate per tuned key; neighbouring arms have a distance of about 1."""
SINGLE_ARM: Coordinates = ((),)
"""Coordinates of the only arm of a point without tuned keys."""
_LEVEL_SD, _ARM_SD, _INDEPENDENT_SD = 3.0, 2.0, 0.2
"""Standard deviations (log n) of the terms of the Gaussian process: a level common to all arms, a
smooth function of the coordinates, and an independent term of each arm."""
_LENGTH_SCALE = 2.5
"""Length scale of the Gaussian process, in units of the coordinates."""
_GAUSSIAN_FRACTION = 0.9
"""Prior probability that the threshold of an arm follows the Gaussian process."""
_OUTLIER_DENSITY = 1 / 12
"""Prior density (per unit of log n) of a threshold that does not follow the Gaussian process."""
_WIDTH_SD = 0.35
"""Standard deviation of log(fit curve width) of an arm around the value common to all arms."""
_DRAWS = 960
"""Number of joint posterior draws."""


@dataclass(frozen=True, kw_only=True)
class ArmPosteriors:
    """Joint posterior of all arms, as equally weighted draws.

    Attributes:
        separate_curves: posterior of each arm's fit curve given its own probes; the other arms only
            affect the prior of its width.
        pooled_curves: posterior of each arm's fit curve given the probes of all arms. Each
            posterior has one cell (one candidate curve) per joint draw; the i-th cells of all arms
            form joint draw i.
        log_emc: log EMC in each joint draw, clipped to [0, log n_limit], shape (draws, arms).
        probed: for each arm, whether it has probes.
    """

    separate_curves: Sequence[FitCurve]
    pooled_curves: Sequence[FitCurve]
    log_emc: Floats
    probed: Sequence[bool]

    @property
    def best_arm(self) -> int:
        """Index of the arm with the largest posterior mean of log EMC, among arms with probes."""
        mean = np.where(self.probed, self.log_emc.mean(axis=0), -math.inf)
        return int(np.argmax(mean))

    @property
    def best_chance(self) -> float:
        """Posterior probability that :attr:`best_arm` has the largest EMC of all arms."""
        return float(np.mean(self.log_emc.argmax(axis=1) == self.best_arm))

    @property
    def regret(self) -> float:
        """Posterior mean of log(largest EMC of all arms / EMC of :attr:`best_arm`)."""
        return float((self.log_emc.max(axis=1) - self.log_emc[:, self.best_arm]).mean())


def arm_posteriors(
    history: History, n_limit: int, q: float, coordinates: Coordinates
) -> ArmPosteriors:
    """Compute the joint posterior of all arms.

    Args:
        history: finished probes of all arms.
        n_limit: largest available n (samples).
        q: P(fit) that defines the EMC, in (0, 1).
        coordinates: see :data:`Coordinates`.
    """
    by_arm = [[r for r in history if r.arm == arm] for arm in range(len(coordinates))]
    probed = [bool(results) for results in by_arm]
    separate = _share_width_prior([posterior(results, n_limit) for results in by_arm])
    pooled = []
    for arm, curve in enumerate(separate):
        log_prior = _threshold_log_prior(separate, probed, coordinates, arm)
        if log_prior is not None:
            curve = curve.reweight(log_prior)
        order = np.random.default_rng(arm).permutation(_DRAWS)
        pooled.append(curve.resample(_DRAWS).select_cells(order))
    log_emc = np.stack([np.log(curve.n_at_fit_probability(q)) for curve in pooled], axis=1)
    # Posterior mass outside of [1, n_limit] must not make one arm appear better than another.
    log_emc = np.clip(log_emc, 0.0, math.log(n_limit))
    return ArmPosteriors(
        separate_curves=separate, pooled_curves=pooled, log_emc=log_emc, probed=probed
    )


def _share_width_prior(curves: Sequence[FitCurve]) -> list[FitCurve]:
    """Return the fit curve of each arm with a prior of its width that depends on the other arms.

    The model is hierarchical: log(width) of the arms is normally distributed around a common value.
    All widths are on the grid ``WIDTHS``.
    """
    log_widths = np.log(WIDTHS)
    spread = math.sqrt(WIDTH_SPREAD**2 - _WIDTH_SD**2)
    common = np.exp(-0.5 * ((log_widths - math.log(WIDTH_MIDDLE)) / spread) ** 2)
    conditional = np.exp(-0.5 * ((log_widths[:, None] - log_widths) / _WIDTH_SD) ** 2)
    conditional /= conditional.sum(axis=1, keepdims=True)
    prior = np.exp(WIDTH_PRIOR) / np.exp(WIDTH_PRIOR).sum()
    indices = [np.searchsorted(WIDTHS, curve.width) for curve in curves]
    likelihoods = [
        conditional @ (np.bincount(index, curve.weight, len(WIDTHS)) / prior)
        for index, curve in zip(indices, curves, strict=True)
    ]
    log_posterior = np.log(common) + np.log(likelihoods).sum(axis=0)
    result = []
    for index, curve, likelihood in zip(indices, curves, likelihoods, strict=True):
        others = log_posterior - np.log(likelihood)
        others = np.exp(others - others.max())
        result.append(curve.reweight(np.log(others @ conditional / prior)[index]))
    return result


def _threshold_log_prior(
    curves: Sequence[FitCurve], probed: Sequence[bool], coordinates: Coordinates, arm: int
) -> Floats | None:
    """Return the log prior density of each threshold of an arm, predicted from the other arms.

    Return None if no other arm has probes.
    """
    others = [other for other in range(len(curves)) if probed[other] and other != arm]
    if not others:
        return None
    moments = [_threshold_moments(curves[other]) for other in others]
    mean = np.array([m for m, _ in moments])
    noise = np.array([s**2 for _, s in moments])
    positions = np.array([coordinates[i] for i in (*others, arm)], dtype=np.float64)
    distances = np.square(positions[:, None] - positions[None]).sum(axis=2)
    covariance = _LEVEL_SD**2 + _ARM_SD**2 * np.exp(-0.5 * distances / _LENGTH_SCALE**2)
    inverse = np.linalg.inv(covariance[:-1, :-1] + np.diag(noise + _INDEPENDENT_SD**2))
    row = covariance[-1, :-1]
    centre = float(np.average(mean, weights=1 / (noise + _INDEPENDENT_SD**2)))
    expected = centre + float(row @ inverse @ (mean - centre))
    variance = covariance[-1, -1] + _INDEPENDENT_SD**2 - float(row @ inverse @ row)
    deviation = math.sqrt(variance)
    z = (curves[arm].threshold - expected) / deviation
    normal = np.exp(-0.5 * z * z) / (deviation * math.sqrt(2 * math.pi))
    outlier = (1 - _GAUSSIAN_FRACTION) * _OUTLIER_DENSITY
    return np.asarray(np.log(_GAUSSIAN_FRACTION * normal + outlier))


def _threshold_moments(curve: FitCurve) -> tuple[float, float]:
    """Return the posterior mean and standard deviation of the threshold (log n)."""
    mean = float(curve.weight @ curve.threshold)
    return mean, math.sqrt(float(curve.weight @ (curve.threshold - mean) ** 2))
