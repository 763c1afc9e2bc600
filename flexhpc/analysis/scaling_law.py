"""How EMC grows with parameters: the exponent of a power law, and how large a network must be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from flexhpc.analysis.likelihood import (
    LOG_EMC,
    STEP,
    Floats,
    blurred,
    is_open,
    likelihood_of,
    stacked,
)
from flexhpc.search.history import LEVEL
from flexhpc.store.status import PointStatus

FEWEST = 3
"""Sizes below which no exponent is given."""
_SCATTERS = np.array([0.0, 0.03, 0.06, 0.1, 0.15, 0.22, 0.32, 0.45, 0.65, 0.9])
_USUAL_SCATTER = 0.25
_SLOPES = np.linspace(-1.0, 3.0, 161)
_HEIGHTS = 121


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """EMC = c P ^ slope, from points of several sizes.

    Attributes:
        name: values of the keys that these points share; points: how many; bounds: of these
            censored.
        slope: exponent, the posterior median; low, high: its interval, None where it is open.
        level: the probability that intervals are made for.
        scatter: deviation of log EMC about the law, beyond what intervals explain.
        draws: (size, 2) of the posterior: log EMC at ``centre``, and slope.
        centre: log parameters in the middle of the points.
    """

    name: Mapping[str, str]
    points: int
    bounds: int
    slope: float
    low: float | None
    high: float | None
    level: float
    scatter: float
    draws: Floats
    centre: float

    @property
    def slope_text(self) -> str:
        """The exponent with its interval, or with the bound that is known of it."""
        if self.low is None and self.high is None:
            return "not known"
        low = "?" if self.low is None else f"{self.low:.2f}"
        high = "?" if self.high is None else f"{self.high:.2f}"
        return f"{self.slope:.2f} [{low}, {high}]"

    def parameters_for(self, n: float) -> tuple[float, float, float] | None:
        """Return the parameters at which the law gives an EMC of n: lower end, median, upper end.

        Beyond the sizes that were measured it is an extrapolation. None where EMC may not grow.
        """
        if self.low is None or self.high is None or self.low <= 0:
            return None
        rising = self.draws[self.draws[:, 1] > 0.01]
        logs = self.centre + (math.log(n) - rising[:, 0]) / rising[:, 1]
        sides = ((1 - self.level) / 2, 0.5, (1 + self.level) / 2)
        low, middle, high = (float(np.exp(x)) for x in np.quantile(np.minimum(logs, 690), sides))
        return low, middle, high


def power_laws(
    statuses: Sequence[PointStatus], within: Sequence[str], level: float = LEVEL
) -> list[PowerLaw]:
    """Fit a power law to the points of each combination of values of some keys.

    Args:
        statuses: points; those without an estimate or without parameters are left out.
        within: keys whose values have a law each, as ``model.family`` and ``data.labels``.
        level: of the intervals.
    """
    groups: dict[tuple[str, ...], list[PointStatus]] = {}
    for status in statuses:
        if status.estimate and status.record and status.record.header.params:
            groups.setdefault(tuple(status.point.value(k) or "" for k in within), []).append(status)
    laws = []
    for values, some in groups.items():
        sizes = {s.record.header.params for s in some if s.record}
        if len(sizes) >= FEWEST:
            laws.append(_law(dict(zip(within, values, strict=True)), some, level))
    return laws


def _law(name: Mapping[str, str], some: Sequence[PointStatus], level: float) -> PowerLaw:
    x = np.array([math.log(s.record.header.params) for s in some if s.record])
    centre = float((x.min() + x.max()) / 2)
    values = [s.estimate.emc for s in some if s.estimate]
    middle = [math.log(max(value, 1)) for value in values]
    heights = np.linspace(min(middle) - 1.5, max(middle) + 1.5, _HEIGHTS)
    likelihoods = stacked([likelihood_of(status) for status in some])
    steps = np.gradient(_SCATTERS)
    logs = []
    for scatter, step in zip(_SCATTERS, steps, strict=True):
        known = np.log(blurred(likelihoods, scatter))
        log = np.zeros((_HEIGHTS, len(_SLOPES)))
        for place, own in zip(x, known, strict=True):
            at = heights[:, None] + _SLOPES * (place - centre)
            cells = np.clip((at - LOG_EMC[0]) / STEP, 0, len(LOG_EMC) - 1).round().astype(int)
            log += own[cells]
        logs.append(log + math.log(step) - 0.5 * (scatter / _USUAL_SCATTER) ** 2)
    stack = np.array(logs)
    joint = np.exp(stack - stack.max())
    slopes = joint.sum(axis=(0, 1))
    bounds = sum(s.estimate is not None and s.estimate.censored != "none" for s in some)
    open_below, open_above = is_open(slopes / slopes.max())
    if bounds == len(some):  # the slope of bounds is none
        open_below = open_above = True
    ends = np.interp(
        [(1 - level) / 2, 0.5, (1 + level) / 2],
        (np.cumsum(slopes) - slopes / 2) / slopes.sum(),
        _SLOPES,
    )
    flat = joint.sum(axis=0).ravel()
    drawn = np.random.default_rng(0).choice(len(flat), 4000, p=flat / flat.sum())
    rows, columns = np.divmod(drawn, len(_SLOPES))
    return PowerLaw(
        name=name,
        points=len(some),
        bounds=bounds,
        slope=float(ends[1]),
        low=None if open_below else float(ends[0]),
        high=None if open_above else float(ends[2]),
        level=level,
        scatter=float(joint.sum(axis=(1, 2)) @ _SCATTERS / joint.sum()),
        draws=np.stack([heights[rows], _SLOPES[columns]], axis=1),
        centre=centre,
    )
