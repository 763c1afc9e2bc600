"""Correlation of generalization with the ratio EMC (original labels) / EMC (random labels).

This tests the fourth claim of arXiv 2406.11463 on the models that were measured with both kinds of
labels and evaluated. An evaluation is used only if its training run interpolated, because otherwise
the gap depends on when training stopped, not on how the model generalizes.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, geometric_mean
from typing import Any, Literal

import numpy as np

from flexhpc.analysis.grouping import group_by
from flexhpc.analysis.text import emc_or_bound
from flexhpc.config import Point
from flexhpc.search.history import LEVEL, Censored, Floats
from flexhpc.store.status import PointStatus

MIN_PAIRS = 4
"""Minimum number of pairs for a correlation."""
Bound = Literal["none", "lower", "upper", "unknown"]
_NUMERATOR_BOUND: dict[Censored, Bound] = {"none": "none", "right": "lower", "left": "upper"}
_DENOMINATOR_BOUND: dict[Censored, Bound] = {"none": "none", "right": "upper", "left": "lower"}
"""For each side on which the numerator or the denominator is censored: which bound the ratio is."""
_RESAMPLES = 2_000


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One model, measured with original and with random labels.

    Attributes:
        name: swept values of the model as text.
        family: model family.
        params: number of parameters.
        emc_original: EMC with original labels (samples).
        emc_random: EMC with random labels (samples).
        bound: ``none`` if no EMC is censored; ``lower`` or ``upper`` if ``log_ratio`` is a lower or
            an upper bound; ``unknown`` if the true log ratio may be smaller or larger.
        test_accuracy: test accuracy of the training run that interpolated the original labels.
        gap: train accuracy minus test accuracy of the same training run.
    """

    name: str
    family: str
    params: int
    emc_original: int
    emc_random: int
    bound: Bound = "none"
    test_accuracy: float
    gap: float

    @property
    def log_ratio(self) -> float:
        """Natural logarithm of (EMC with original labels / EMC with random labels)."""
        return math.log(max(self.emc_original, 1) / max(self.emc_random, 1))


@dataclass(frozen=True, kw_only=True)
class Correlation:
    """A correlation with its bootstrap interval, at level ``LEVEL``.

    Attributes:
        name: correlation coefficient, such as ``Pearson``.
        value: value of the coefficient.
        lower, upper: ends of the bootstrap interval.
        jackknife_min, jackknife_max: smallest and largest correlation with one model removed, which
            show whether a single model causes the correlation. None if there are only
            ``MIN_PAIRS`` models, or if the correlation is undefined without one of the models.
    """

    name: str
    value: float
    lower: float
    upper: float
    jackknife_min: float | None
    jackknife_max: float | None

    @property
    def jackknife_text(self) -> str:
        """The jackknife range: ``0.71 to 0.93``, or ``not defined``."""
        if self.jackknife_min is None or self.jackknife_max is None:
            return "not defined"
        return f"{self.jackknife_min:.2f} to {self.jackknife_max:.2f}"


def label_pairs(statuses: Sequence[PointStatus]) -> list[Pair]:
    """Return one pair for each model that was measured with original and with random labels.

    A seed is omitted if its training run for evaluation did not interpolate the original labels.
    The pairs of the seeds of a model are averaged, because seeds are not independent models.
    """
    by_labels: dict[tuple[str, int], dict[str, PointStatus]] = {}
    for status in statuses:
        if status.estimate is not None and status.record is not None:
            model = json.loads(status.point.canonical)
            labels, seed = model["data"].pop("labels"), model.pop("seed")
            points = by_labels.setdefault((json.dumps(model, sort_keys=True), seed), {})
            if labels not in points or interpolating_evaluation(points[labels]) is None:
                points[labels] = status
    models: dict[str, list[Pair]] = {}
    for (key, _), points in by_labels.items():
        if {"original", "random"} <= set(points):
            pair = _make_pair(points["original"], points["random"])
            if pair is not None:
                models.setdefault(key, []).append(pair)
    return [_average_over_seeds(pairs) for pairs in models.values()]


def _average_over_seeds(pairs: Sequence[Pair]) -> Pair:
    """Return geometric means of the EMCs, and arithmetic means of test accuracy and gap."""
    return replace(
        pairs[0],
        emc_original=round(geometric_mean(max(pair.emc_original, 1) for pair in pairs)),
        emc_random=round(geometric_mean(max(pair.emc_random, 1) for pair in pairs)),
        bound=_joint_bound(*(pair.bound for pair in pairs)),
        test_accuracy=fmean(pair.test_accuracy for pair in pairs),
        gap=fmean(pair.gap for pair in pairs),
    )


def interpolating_evaluation(status: PointStatus) -> dict[str, Any] | None:
    """Return the evaluation of a point if its training run interpolated; otherwise None."""
    evaluation = status.record.evaluation if status.record else None
    return evaluation if evaluation is not None and evaluation["interpolated"] else None


def _make_pair(original: PointStatus, random: PointStatus) -> Pair | None:
    """Return the pair of two measured points; None if the gap is unknown."""
    evaluation = interpolating_evaluation(original)
    if evaluation is None or not math.isfinite(evaluation["gap"]):
        return None
    assert original.record is not None
    assert original.estimate is not None
    assert random.estimate is not None
    return Pair(
        name=model_name(original.point),
        family=original.point.model.family,
        params=original.record.header.params,
        emc_original=emc_or_bound(original.estimate),
        emc_random=emc_or_bound(random.estimate),
        bound=_joint_bound(
            _NUMERATOR_BOUND[original.estimate.censored],
            _DENOMINATOR_BOUND[random.estimate.censored],
        ),
        test_accuracy=evaluation["test_accuracy"],
        gap=evaluation["gap"],
    )


def model_name(point: Point) -> str:
    """Return the swept values except labels and seed, such as ``family mlp, depth 2``."""
    swept = {k: v for k, v in point.swept.items() if k not in ("data.labels", "seed")}
    return ", ".join(f"{key.split('.')[-1]} {value}" for key, value in swept.items())


def _joint_bound(*bounds: Bound) -> Bound:
    """Return the kind that all ``bounds`` other than ``none`` have; ``unknown`` if they differ."""
    kinds = {bound for bound in bounds if bound != "none"}
    return "unknown" if len(kinds) > 1 else kinds.pop() if kinds else "none"


def uncensored_pairs(model_pairs: Sequence[Pair]) -> list[Pair]:
    """Return the pairs without censored EMCs, because bounds cannot be correlated."""
    return [pair for pair in model_pairs if pair.bound == "none"]


def correlations(model_pairs: Sequence[Pair], outcome: str) -> list[Correlation]:
    """Correlate :attr:`Pair.log_ratio` with an outcome across models.

    Computes Pearson's r, Spearman's rho, Kendall's tau and the partial Pearson correlation given
    the log number of parameters. The partial correlation is the correlation of the residuals after
    both variables were regressed linearly on the log number of parameters. Each correlation has a
    percentile bootstrap interval over models and a jackknife range.

    Args:
        model_pairs: one pair per model; pairs with a censored EMC are ignored.
        outcome: ``test_accuracy`` or ``gap``.

    Returns:
        The correlations that are defined. An empty list for fewer than ``MIN_PAIRS`` uncensored
        pairs, or if ``log_ratio`` or the outcome does not vary.
    """
    exact_pairs = uncensored_pairs(model_pairs)
    if len(exact_pairs) < MIN_PAIRS:
        return []
    log_ratios = np.array([pair.log_ratio for pair in exact_pairs])
    result = np.array([getattr(pair, outcome) for pair in exact_pairs], dtype=np.float64)
    log_params = np.log([pair.params for pair in exact_pairs])
    results = (correlate(name, log_ratios, result, log_params) for name in _MEASURES)
    return [correlation for correlation in results if correlation is not None]


def correlate(name: str, x: Floats, y: Floats, log_params: Floats) -> Correlation | None:
    """Compute one of the correlations of :func:`correlations`; return None if it is not defined.

    Args:
        name: name of the coefficient, such as ``Pearson``.
        x, y: the two variables, one value per model.
        log_params: logarithms of the numbers of parameters, one per model.
    """
    measure, n = _MEASURES[name], len(x)
    resamples = np.random.default_rng(0).integers(0, n, (_RESAMPLES, n))
    others = ~np.eye(n, dtype=bool)
    bootstrap, without_one = (
        np.array([measure(x[i], y[i], log_params[i]) for i in samples])
        for samples in (resamples, others)
    )
    value, bootstrap = measure(x, y, log_params), bootstrap[np.isfinite(bootstrap)]
    if math.isnan(value) or not len(bootstrap):
        return None
    tail = (1 - LEVEL) / 2
    lower, upper = np.quantile(bootstrap, (tail, 1 - tail))
    defined = bool(np.isfinite(without_one).all()) and n > MIN_PAIRS
    return Correlation(
        name=name, value=value, lower=float(lower), upper=float(upper),
        jackknife_min=float(without_one.min()) if defined else None,
        jackknife_max=float(without_one.max()) if defined else None,
    )  # fmt: skip


def pairs_by_family(model_pairs: Sequence[Pair]) -> dict[str, list[Pair]]:
    """Group the uncensored pairs by family; an additional group ``all`` contains all pairs.

    Groups of fewer than ``MIN_PAIRS`` pairs, and a family that contains all pairs, are omitted.
    """
    exact_pairs = uncensored_pairs(model_pairs)
    families = group_by(exact_pairs, lambda pair: pair.family)
    return {
        name: models
        for name, models in {"all": exact_pairs, **families}.items()
        if len(models) >= MIN_PAIRS and (name == "all" or len(models) < len(exact_pairs))
    }


def interpolation_text(statuses: Sequence[PointStatus]) -> str:
    """Return a text that states how many training runs for evaluation reached train accuracy 1.

    The text is empty if no point was evaluated.
    """
    evaluations = {
        (status.point.id, json.dumps(record.evaluation["asked"])): record.evaluation
        for status in statuses
        if (record := status.record) is not None and record.evaluation is not None
    }
    if not evaluations:
        return ""
    verdicts = Counter(e["verdict"] for e in evaluations.values() if not e["interpolated"])
    total, omitted = len(evaluations), verdicts.total()
    summary = (
        f"{total - omitted} of {total} training runs for evaluation interpolated "
        "(train accuracy 1)."
    )
    if not omitted:
        return summary
    listed = ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))
    effect = "these training runs are omitted from the correlations"
    if omitted == total:
        effect = "no correlation is given"
    return (
        f"{summary} {omitted} did not ({listed}). Without interpolation, the gap depends on when "
        f"training stopped, so {effect}. Set a larger budget or a smaller evaluate.n."
    )


def _pearson(x: Floats, y: Floats, _: Floats) -> float:
    return math.nan if np.ptp(x) == 0 or np.ptp(y) == 0 else float(np.corrcoef(x, y)[0, 1])


def _spearman(x: Floats, y: Floats, log_params: Floats) -> float:
    from scipy import stats  # importing it takes 0.5 s, and most reports do not need it

    return _pearson(stats.rankdata(x), stats.rankdata(y), log_params)


def _kendall(x: Floats, y: Floats, _: Floats) -> float:
    from scipy import stats

    return float(stats.kendalltau(x, y).statistic)  # nan if x or y does not vary


def _partial_pearson(x: Floats, y: Floats, log_params: Floats) -> float:
    if np.ptp(log_params) == 0:
        return math.nan
    basis = np.stack([np.ones_like(log_params), log_params], axis=1)
    x, y = (v - basis @ np.linalg.lstsq(basis, v, rcond=None)[0] for v in (x, y))
    return math.nan if min(np.abs(x).max(), np.abs(y).max()) < 1e-12 else _pearson(x, y, log_params)


_MEASURES: dict[str, Callable[[Floats, Floats, Floats], float]] = {
    "Pearson": _pearson,
    "Spearman": _spearman,
    "Kendall": _kendall,
    "Pearson given log parameters": _partial_pearson,
}
