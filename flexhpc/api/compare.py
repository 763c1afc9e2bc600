"""Comparison of two EMCs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flexhpc.api.runs import Measurement

_DRAWS = 20_000


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Ratio of two EMCs with its credible interval.

    Attributes:
        ratio: posterior median of the ratio of the EMCs.
        low, high: ends of its interval; None on a side that a censored EMC leaves open.
        level: probability of the interval.
        chance: posterior probability that the first EMC is larger; None if censoring leaves both
            sides open.
    """

    ratio: float
    low: float | None
    high: float | None
    level: float
    chance: float | None

    def __str__(self) -> str:
        """Return the ratio, its interval and the probability in one line."""
        ends = ["?" if end is None else f"{end:.2f}" for end in (self.low, self.high)]
        larger = "" if self.chance is None else f", P(larger) {self.chance:.3g}"
        return f"ratio {self.ratio:.2f} [{ends[0]}, {ends[1]}]{larger}"


def compare(a: Measurement, b: Measurement, *, level: float = 0.9) -> Comparison:
    """Compare two EMCs by independent draws from their posteriors.

    An EMC depends on the training recipe. If the interval excludes 1, the two recipes differ, with
    these seeds; see docs/recipe.md for what else affects an EMC.

    Args:
        a, b: the measurements; the ratio is a / b.
        level: probability of the interval, between 0 and 1.

    Raises:
        PointError: one of them has no estimate yet.
        ValueError: ``level`` is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level: {level} is not between 0 and 1")
    ratios = a.draws(_DRAWS, seed=0) / b.draws(_DRAWS, seed=1)
    low, middle, high = np.quantile(ratios, [(1 - level) / 2, 0.5, (1 + level) / 2])
    open_above = a.censored == "right" or b.censored == "left"
    open_below = a.censored == "left" or b.censored == "right"
    return Comparison(
        ratio=float(middle),
        low=None if open_below else float(low),
        high=None if open_above else float(high),
        level=level,
        chance=None if open_above and open_below else float((ratios > 1).mean()),
    )
