"""Compare two EMCs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flexhpc.api.runs import Measurement

_DRAWS = 20_000


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How much larger one EMC is than another.

    Attributes:
        ratio: of the EMCs, the median of their posterior.
        low, high: its interval; None where a censored EMC leaves that side open.
        level: the probability that the interval is made for.
        chance: the posterior probability that the first one is larger; None if both are censored.
    """

    ratio: float
    low: float | None
    high: float | None
    level: float
    chance: float | None

    def __str__(self) -> str:
        """Say it in a line."""
        ends = ["?" if end is None else f"{end:.2f}" for end in (self.low, self.high)]
        larger = "" if self.chance is None else f", P(larger) {self.chance:.3g}"
        return f"ratio {self.ratio:.2f} [{ends[0]}, {ends[1]}]{larger}"


def compare(a: Measurement, b: Measurement, *, level: float = 0.9) -> Comparison:
    """Compare two EMCs by draws from their posteriors, which say nothing of each other.

    An EMC belongs to a recipe: that the interval leaves 1 out says that these two recipes differ,
    with these seeds; docs/recipe.md says what else moves an EMC.

    Args:
        a, b: the measurements; the ratio is that of a over b.
        level: of the interval.

    Raises:
        PointError: one of them has no estimate yet.
        ValueError: the level is no probability.
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
