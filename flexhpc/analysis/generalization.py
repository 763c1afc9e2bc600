"""Does the difference between EMC with true and with random labels go along with generalization?

The fourth finding of arXiv 2406.11463. Models that were measured with both labels and evaluated on
the full training set are paired here and correlated, within a sweep of any shape.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from flexhpc.analysis.board import PointStatus
from flexhpc.search.history import LEVEL

Floats = NDArray[np.float64]
FEWEST = 4
"""Pairs below which no correlation is given."""
_RESAMPLES = 2_000
_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One model, measured with original and with random labels.

    Attributes:
        name: of the model; family: of its kind; params: its parameters.
        emc_true, emc_random: samples; censored: whether either is a bound only.
        test_accuracy, gap: trained on the full training set with original labels.
    """

    name: str
    family: str
    params: int
    emc_true: int
    emc_random: int
    censored: bool
    test_accuracy: float
    gap: float

    @property
    def excess(self) -> float:
        """The predictor: log(EMC with true labels / EMC with random labels)."""
        return math.log(max(self.emc_true, 1) / max(self.emc_random, 1))


@dataclass(frozen=True, kw_only=True)
class Correlation:
    """A correlation with its bootstrap interval at ``LEVEL``."""

    name: str
    value: float
    lower: float
    upper: float


def pairs(statuses: Sequence[PointStatus]) -> list[Pair]:
    """Pair the points that differ in their labels only, where both have an EMC."""
    sides: dict[str, dict[str, PointStatus]] = {}
    for status in statuses:
        if status.estimate is not None and status.record is not None:
            point = json.loads(status.point.canonical)
            labels = point["data"].pop("labels")
            sides.setdefault(json.dumps(point, sort_keys=True), {})[labels] = status
    return [
        _pair(both["original"], both["random"])
        for both in sides.values()
        if {"original", "random"} <= set(both) and _evaluation(both["original"]) is not None
    ]


def _evaluation(status: PointStatus) -> dict[str, Any] | None:
    return status.record.evaluation if status.record else None


def _pair(true: PointStatus, random: PointStatus) -> Pair:
    record, evaluation = true.record, _evaluation(true)
    assert record is not None
    assert evaluation is not None
    assert true.estimate is not None
    assert random.estimate is not None
    swept = {k: v for k, v in true.point.swept.items() if k != "data.labels"}
    return Pair(
        name=", ".join(f"{key.split('.')[-1]} {value}" for key, value in swept.items()),
        family=true.point.model.family,
        params=record.header.params,
        emc_true=true.estimate.emc,
        emc_random=random.estimate.emc,
        censored=true.estimate.censored != "none" or random.estimate.censored != "none",
        test_accuracy=evaluation["test_accuracy"],
        gap=evaluation["gap"],
    )


def correlations(found: Sequence[Pair], outcome: str) -> list[Correlation]:
    """Correlate the excess of EMC with an outcome over models.

    Pearson, Spearman, Kendall's tau, and Pearson given log parameters (the correlation of what is
    left of both after a linear fit on log parameters); percentile bootstrap over models.

    Args:
        found: one per model; outcome: ``test_accuracy`` or ``gap``.

    Returns:
        Empty for fewer than ``FEWEST`` pairs.
    """
    if len(found) < FEWEST:
        return []
    excess = np.array([pair.excess for pair in found])
    result = np.array([getattr(pair, outcome) for pair in found], dtype=np.float64)
    size = np.log([pair.params for pair in found])
    rng = np.random.default_rng(_SEED)
    draws = rng.integers(0, len(found), (_RESAMPLES, len(found)))
    tail = (1 - LEVEL) / 2
    lines = []
    for name, measure in _MEASURES.items():
        value = measure(excess, result, size)
        drawn = np.array([measure(excess[i], result[i], size[i]) for i in draws])
        lower, upper = np.nanquantile(drawn, (tail, 1 - tail))
        lines.append(Correlation(name=name, value=value, lower=float(lower), upper=float(upper)))
    return lines


def _pearson(x: Floats, y: Floats) -> float:
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return float(np.corrcoef(x, y)[0, 1])


def _ranks(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    return stats.rankdata(x), stats.rankdata(y)


def _kendall(x: Floats, y: Floats) -> float:
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
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
