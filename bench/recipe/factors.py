"""Compute the ratio of two EMCs with its interval, from draws of both posteriors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from flexhpc.config.sections.search import QuantileSearch
from flexhpc.search.evidence import Floats
from flexhpc.search.fit_curve import posterior
from flexhpc.search.history import LEVEL, TAILS
from flexhpc.store import history_of
from flexhpc.store.status import PointStatus

DRAWS = 20_000


@dataclass(frozen=True, kw_only=True)
class Factor:
    """The EMC of a point divided by the EMC of its base.

    Attributes:
        low, high: ends of the interval at ``level``; 0 and infinite if unbounded.
        middle: median; None if one of the two EMCs is only a bound.
        level: probability of the interval.
    """

    low: float
    middle: float | None
    high: float
    level: float = LEVEL

    @property
    def moved(self) -> bool:
        """Whether the interval excludes 1."""
        return self.low > 1 or self.high < 1

    @property
    def text(self) -> str:
        """Text of the cell: ``1.42 [1.20, 1.71]``, ``>= 3.10``, ``<= 0.04`` or ``unknown``."""
        if self.middle is not None:
            return f"{_digits(self.middle)} [{_digits(self.low)}, {_digits(self.high)}]"
        if math.isinf(self.high):
            return f">= {_digits(self.low)}" if self.low > 0 else "unknown"
        return f"<= {_digits(self.high)}"


def factor(point: PointStatus, base: PointStatus) -> Factor:
    """Return the EMC of a point divided by that of its base.

    The posteriors are independent, because the training runs are. A censored EMC gives a bound.

    Args:
        point, base: points with at least one probe each and equal estimands.
    """
    low, high = _between(point, seed=1)
    base_low, base_high = _between(base, seed=0)
    with np.errstate(divide="ignore"):
        lowest, highest = low / base_high, high / base_low
    measured = bool(np.isfinite(highest).all() and lowest.all())
    return Factor(
        low=float(np.quantile(lowest, TAILS[0])),
        middle=float(np.median(lowest)) if measured else None,
        high=float(np.quantile(highest, TAILS[2], method="lower")),
    )


def _between(status: PointStatus, seed: int) -> tuple[Floats, Floats]:
    """Draw lower and upper bounds of an EMC; both are equal unless the EMC is censored."""
    record, estimate = status.record, status.estimate
    if record is None or estimate is None:
        raise ValueError(f"{status.point.label} is not measured")
    same = np.ones(DRAWS)
    if estimate.censored == "right":
        return same * estimate.emc, same * math.inf
    if estimate.censored == "left":
        return same * 0.0, same * (estimate.smallest_fail or 1)
    search = status.point.search
    if not isinstance(search, QuantileSearch):
        raise ValueError(f"{status.point.label}: estimand has no level; set search.policy: bayes")
    training = status.point.at(estimate.arm).training
    history = [r for r in history_of(record.probes, training) if r.arm == estimate.arm]
    curve = posterior(history, record.header.n_limit)
    rng = np.random.default_rng(seed)
    cells = rng.choice(len(curve.weight), size=DRAWS, p=curve.weight)
    drawn = curve.level_set(search.quantile)[cells]
    return drawn, drawn


def _digits(value: float) -> str:
    """Format with two decimals, or with two significant digits below 0.1."""
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"
