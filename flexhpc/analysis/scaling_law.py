"""Power laws of EMC as a function of the number of parameters P: EMC = c P ^ slope."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flexhpc.analysis.grouping import group_by
from flexhpc.analysis.likelihood import (
    LOG_EMC,
    STEP,
    convolve_with_normal,
    likelihood_of,
    open_ends,
    stack_likelihoods,
)
from flexhpc.analysis.reasons import is_censored
from flexhpc.search.history import LEVEL, TAILS, Floats
from flexhpc.store.status import PointStatus

MIN_SIZES = 3
"""Minimum number of different network sizes that are needed to fit a power law."""
_SCATTERS = np.array([0.0, 0.03, 0.06, 0.1, 0.15, 0.22, 0.32, 0.45, 0.65, 0.9])
_USUAL_SCATTER = 0.25
_SLOPES = np.linspace(-1.0, 3.0, 161)
_HEIGHTS = 121


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """Power law EMC = c P ^ slope, fitted to points with different numbers of parameters P.

    Attributes:
        within: values of the grouping keys.
        points: number of points.
        bounds: number of points whose EMC is censored.
        slope: posterior median of the exponent.
        low, high: ends of the interval of the exponent; None for an open end.
        scatter: posterior mean of the standard deviation of log EMC around the law, in addition to
            the uncertainty of each EMC.
        draws: posterior draws of (log EMC at ``centre``, slope), (number of draws, 2).
        centre: middle of the range of log P.
    """

    within: Mapping[str, str]
    points: int
    bounds: int
    slope: float
    low: float | None
    high: float | None
    scatter: float
    draws: Floats
    centre: float

    @property
    def slope_text(self) -> str:
        """The exponent and its interval as text.

        An open end is ``?``. If both ends are open, the text is ``not known``.
        """
        if self.low is None and self.high is None:
            return "not known"
        low = "?" if self.low is None else f"{self.low:.2f}"
        high = "?" if self.high is None else f"{self.high:.2f}"
        return f"{self.slope:.2f} [{low}, {high}]"

    def parameters_for(self, emc: float) -> tuple[float, float, float] | None:
        """Return the number of parameters with this EMC: lower end, median and upper end.

        Outside the range of the measured network sizes, the numbers are extrapolations. Return None
        if the interval of the exponent has an open end or includes values at or below 0.
        """
        if self.low is None or self.high is None or self.low <= 0:
            return None
        rising = self.draws[self.draws[:, 1] > 0.01]
        logs = self.centre + (math.log(emc) - rising[:, 0]) / rising[:, 1]
        low, middle, high = np.exp(np.quantile(np.minimum(logs, 690), TAILS)).tolist()
        return low, middle, high

    def as_row(self, emc: float | None = None) -> dict[str, Any]:
        """Return a dict of the grouping keys, the exponent, its interval and the number of points.

        Args:
            emc: EMC (samples). If set, the number of parameters that it requires is added.
        """
        row: dict[str, Any] = {
            **self.within, "slope": self.slope, "slope_lo": self.low, "slope_hi": self.high,
            "level": LEVEL, "points": self.points, "bounds": self.bounds,
            "scatter": self.scatter,
        }  # fmt: skip
        if emc:
            low, middle, high = self.parameters_for(emc) or (None, None, None)
            row |= {"parameters": middle, "parameters_lo": low, "parameters_hi": high}
        return row


def power_laws(statuses: Sequence[PointStatus], within: Sequence[str]) -> list[PowerLaw]:
    """Fit a power law to each group of points with the same values of the grouping keys.

    Args:
        statuses: points; those that have no estimate or no network parameters are ignored.
        within: grouping keys, such as ``model.family`` and ``data.labels``.

    Returns:
        One law per group with at least ``MIN_SIZES`` different network sizes.
    """
    measured = [s for s in statuses if s.estimate and s.record and s.record.header.params]
    groups = group_by(measured, lambda s: tuple(s.point.value_text(key) or "" for key in within))
    return [
        _fit_law(dict(zip(within, values, strict=True)), points)
        for values, points in groups.items()
        if len({s.record.header.params for s in points if s.record}) >= MIN_SIZES
    ]


def _fit_law(within: Mapping[str, str], points: Sequence[PointStatus]) -> PowerLaw:
    x = np.array([math.log(s.record.header.params) for s in points if s.record])
    centre = float((x.min() + x.max()) / 2)
    log_emc = [math.log(max(s.estimate.emc, 1)) for s in points if s.estimate]
    heights = np.linspace(min(log_emc) - 1.5, max(log_emc) + 1.5, _HEIGHTS)
    likelihoods = stack_likelihoods([likelihood_of(status) for status in points])
    steps = np.gradient(_SCATTERS)
    logs = []
    for scatter, step in zip(_SCATTERS, steps, strict=True):
        log_likelihoods = np.log(convolve_with_normal(likelihoods, scatter))
        log = np.zeros((_HEIGHTS, len(_SLOPES)))
        for log_params, likelihood in zip(x, log_likelihoods, strict=True):
            predicted = heights[:, None] + _SLOPES * (log_params - centre)
            cells = np.clip((predicted - LOG_EMC[0]) / STEP, 0, len(LOG_EMC) - 1)
            log += likelihood[cells.round().astype(int)]
        logs.append(log + math.log(step) - 0.5 * (scatter / _USUAL_SCATTER) ** 2)
    stack = np.array(logs)
    joint = np.exp(stack - stack.max())
    slopes = joint.sum(axis=(0, 1))
    bounds = sum(map(is_censored, points))
    open_below, open_above = open_ends(slopes / slopes.max())
    if bounds == len(points):  # bounds alone do not determine a slope
        open_below = open_above = True
    cumulative = (np.cumsum(slopes) - slopes / 2) / slopes.sum()
    low, middle, high = np.interp(TAILS, cumulative, _SLOPES)
    flat = joint.sum(axis=0).ravel()
    drawn = np.random.default_rng(0).choice(len(flat), 4000, p=flat / flat.sum())
    rows, columns = np.divmod(drawn, len(_SLOPES))
    return PowerLaw(
        within=within,
        points=len(points),
        bounds=bounds,
        slope=float(middle),
        low=None if open_below else float(low),
        high=None if open_above else float(high),
        scatter=float(joint.sum(axis=(1, 2)) @ _SCATTERS / joint.sum()),
        draws=np.stack([heights[rows], _SLOPES[columns]], axis=1),
        centre=centre,
    )
