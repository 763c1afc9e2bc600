"""Correlation of generalization with the ratio of EMC with original labels to EMC with random ones.

The fourth finding of arXiv 2406.11463. Models that were measured with both kinds of labels and
evaluated are paired and correlated, within a sweep of any shape. Only trainings that interpolated
count: without interpolation the gap shows how far training got, not how the model generalizes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from flexhpc.search import Estimate
from flexhpc.search.history import LEVEL, Censored
from flexhpc.store.status import PointStatus

Floats = NDArray[np.float64]
FEWEST = 4
"""Minimum number of pairs for a correlation."""
Bound = Literal["none", "lower", "upper", "unknown"]
_ABOVE: dict[Censored, Bound] = {"none": "none", "right": "lower", "left": "upper"}
_BELOW: dict[Censored, Bound] = {"none": "none", "right": "upper", "left": "lower"}
"""Type of bound that a ratio is, by the censoring of its numerator (``_ABOVE``) or denominator
(``_BELOW``)."""
_RESAMPLES = 2_000
_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One model, measured with original and with random labels.

    Attributes:
        name: name of the model; family: its model family; params: its number of parameters.
        emc_true, emc_random: EMC with original and with random labels (samples).
        bound: ``none`` if both EMCs are measured; otherwise whether ``excess`` is a ``lower`` or an
            ``upper`` bound of its true value, or neither (``unknown``).
        test_accuracy, gap: evaluation of the model trained with original labels until it
            interpolated.
    """

    name: str
    family: str
    params: int
    emc_true: int
    emc_random: int
    bound: Bound = "none"
    test_accuracy: float
    gap: float

    @property
    def censored(self) -> bool:
        """Whether either EMC is only a bound."""
        return self.bound != "none"

    @property
    def excess(self) -> float:
        """The predictor: log(EMC with original labels / EMC with random labels)."""
        return math.log(max(self.emc_true, 1) / max(self.emc_random, 1))


@dataclass(frozen=True, kw_only=True)
class Correlation:
    """A correlation with its bootstrap interval at ``LEVEL``.

    Attributes:
        name: name of the measure; value: the correlation; lower, upper: its interval.
        least, most: smallest and largest correlation with one model removed (jackknife). They show
            if a single model causes the correlation, which the interval does not. None if it is
            undefined without one of the models, as the others do not vary.
    """

    name: str
    value: float
    lower: float
    upper: float
    least: float | None
    most: float | None

    @property
    def without_text(self) -> str:
        """The jackknife range: ``0.71 to 0.93``, ``not defined``."""
        if self.least is None or self.most is None:
            return "not defined"
        return f"{self.least:.2f} to {self.most:.2f}"


def pairs(statuses: Sequence[PointStatus]) -> list[Pair]:
    """Pair the points that differ in their labels only, where both have an EMC.

    Several seeds of one model are averaged into one pair, as they are not independent models.
    """
    sides: dict[str, dict[str, PointStatus]] = {}
    for status in statuses:
        if status.estimate is not None and status.record is not None:
            point = json.loads(status.point.canonical)
            labels = point["data"].pop("labels")
            held = sides.setdefault(json.dumps(point, sort_keys=True), {})
            if labels not in held or _evaluation(held[labels]) is None:
                held[labels] = status
    models: dict[str, list[Pair]] = {}
    for key, both in sides.items():
        if {"original", "random"} <= set(both) and _evaluation(both["original"]) is not None:
            model = {k: v for k, v in json.loads(key).items() if k != "seed"}
            pair = _pair(both["original"], both["random"])
            if math.isfinite(pair.gap):
                models.setdefault(json.dumps(model, sort_keys=True), []).append(pair)
    return [_mean(seeds) for seeds in models.values()]


def _mean(seeds: Sequence[Pair]) -> Pair:
    """Average over seeds: geometric mean for EMC, arithmetic mean for accuracy and gap."""

    def middle(values: Sequence[int]) -> int:
        return round(math.exp(sum(math.log(max(v, 1)) for v in values) / len(values)))

    return replace(
        seeds[0],
        emc_true=middle([pair.emc_true for pair in seeds]),
        emc_random=middle([pair.emc_random for pair in seeds]),
        bound=_joint(*(pair.bound for pair in seeds)),
        test_accuracy=sum(pair.test_accuracy for pair in seeds) / len(seeds),
        gap=sum(pair.gap for pair in seeds) / len(seeds),
    )


def _evaluation(status: PointStatus) -> dict[str, Any] | None:
    """Return the evaluation of a point; None if its training did not interpolate."""
    evaluation = status.record.evaluation if status.record else None
    return evaluation if evaluation is not None and evaluation["interpolated"] else None


def _pair(true: PointStatus, random: PointStatus) -> Pair:
    record, evaluation = true.record, _evaluation(true)
    assert record is not None
    assert evaluation is not None
    assert true.estimate is not None
    assert random.estimate is not None
    swept = {k: v for k, v in true.point.swept.items() if k not in ("data.labels", "seed")}
    return Pair(
        name=", ".join(f"{key.split('.')[-1]} {value}" for key, value in swept.items()),
        family=true.point.model.family,
        params=record.header.params,
        emc_true=_samples(true.estimate),
        emc_random=_samples(random.estimate),
        bound=_joint(_ABOVE[true.estimate.censored], _BELOW[random.estimate.censored]),
        test_accuracy=evaluation["test_accuracy"],
        gap=evaluation["gap"],
    )


def _samples(estimate: Estimate) -> int:
    """Return the EMC, or the bound if it is censored."""
    return (estimate.smallest_fail or 1) if estimate.censored == "left" else estimate.emc


def _joint(*bounds: Bound) -> Bound:
    """Return the type of bound of a ratio or mean, from those of its parts."""
    some = {bound for bound in bounds if bound != "none"}
    return "unknown" if len(some) > 1 else some.pop() if some else "none"


def exact(model_pairs: Sequence[Pair]) -> list[Pair]:
    """Return the pairs without a censored EMC, as a correlation cannot include bounds."""
    return [pair for pair in model_pairs if not pair.censored]


def correlations(model_pairs: Sequence[Pair], outcome: str) -> list[Correlation]:
    """Correlate ``excess`` with an outcome over models.

    Computes Pearson's r, Spearman's rho, Kendall's tau and the partial Pearson correlation given
    log parameters (that of the residuals of both after a linear fit on log parameters), each with a
    percentile bootstrap interval over models and the jackknife range.

    Args:
        model_pairs: one per model; those with a censored EMC are ignored (see :func:`exact`).
        outcome: ``test_accuracy`` or ``gap``.

    Returns:
        The correlations that are defined: none for fewer than ``FEWEST`` pairs, or if ``excess`` or
        the outcome does not vary.
    """
    exact_pairs = exact(model_pairs)
    if len(exact_pairs) < FEWEST:
        return []
    excess = np.array([pair.excess for pair in exact_pairs])
    result = np.array([getattr(pair, outcome) for pair in exact_pairs], dtype=np.float64)
    size = np.log([pair.params for pair in exact_pairs])
    rng = np.random.default_rng(_SEED)
    draws = rng.integers(0, len(exact_pairs), (_RESAMPLES, len(exact_pairs)))
    others = ~np.eye(len(exact_pairs), dtype=bool)
    tail = (1 - LEVEL) / 2
    lines = []
    for name, measure in _MEASURES.items():
        value = measure(excess, result, size)
        drawn, without = (
            np.array([measure(excess[i], result[i], size[i]) for i in chosen])
            for chosen in (draws, others)
        )
        drawn = drawn[np.isfinite(drawn)]
        if not math.isnan(value) and len(drawn):
            lower, upper = np.quantile(drawn, (tail, 1 - tail))
            whole = bool(np.isfinite(without).all()) and len(others) > FEWEST
            line = Correlation(
                name=name,
                value=value,
                lower=float(lower),
                upper=float(upper),
                least=float(without.min()) if whole else None,
                most=float(without.max()) if whole else None,
            )
            lines.append(line)
    return lines


def by_family(model_pairs: Sequence[Pair]) -> dict[str, list[Pair]]:
    """Group exact pairs by family, for families with at least ``FEWEST``; ``all`` has all pairs.

    A family that contains all pairs is omitted, as it equals ``all``.
    """
    exact_pairs = exact(model_pairs)
    families: dict[str, list[Pair]] = {"all": exact_pairs}
    for pair in exact_pairs:
        families.setdefault(pair.family, []).append(pair)
    return {
        name: some
        for name, some in families.items()
        if len(some) >= FEWEST and (name == "all" or len(some) < len(exact_pairs))
    }


def _pearson(x: Floats, y: Floats) -> float:
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return float(np.corrcoef(x, y)[0, 1])


def _ranks(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    from scipy import stats  # takes half a second to import, and most reports do not need it

    return stats.rankdata(x), stats.rankdata(y)


def _kendall(x: Floats, y: Floats) -> float:
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    from scipy import stats

    return float(stats.kendalltau(x, y).statistic)


def _partial(x: Floats, y: Floats, size: Floats) -> float:
    if len(np.unique(size)) < 2:
        return math.nan
    basis = np.stack([np.ones_like(size), size], axis=1)
    left = [v - basis @ np.linalg.lstsq(basis, v, rcond=None)[0] for v in (x, y)]
    if min(float(np.abs(v).max()) for v in left) < 1e-12:
        return math.nan
    return _pearson(*left)


_MEASURES: dict[str, Callable[[Floats, Floats, Floats], float]] = {
    "Pearson": lambda x, y, _: _pearson(x, y),
    "Spearman": lambda x, y, _: _pearson(*_ranks(x, y)),
    "Kendall": lambda x, y, _: _kendall(x, y),
    "Pearson given log parameters": _partial,
}
