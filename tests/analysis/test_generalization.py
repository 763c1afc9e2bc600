"""Correlation of generalization with ratios of EMCs, pairs of labels, and their figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from flexhpc.analysis.figures.generalization import generalization_figure
from flexhpc.analysis.generalization import (
    MIN_PAIRS,
    Pair,
    correlations,
    interpolation_text,
    label_pairs,
    pairs_by_family,
    uncensored_pairs,
)
from flexhpc.config import Point
from flexhpc.store.status import PointStatus
from tests.analysis.builders import (
    ALL_FIT,
    BISECTION,
    DIGITS,
    NONE_FIT,
    UNCENSORED,
    Outcome,
    measured_point,
    one_point,
    points_of,
    write_report,
)


def pair(log_ratio: float, accuracy: float, params: int) -> Pair:
    return Pair(
        name="", family="mlp", params=params, emc_original=round(1e6 * math.exp(log_ratio)),
        emc_random=10**6, test_accuracy=accuracy, gap=1 - accuracy,
    )  # fmt: skip


def random_pairs(count: int, slope: float, noise: float) -> list[Pair]:
    rng = np.random.default_rng(1)
    log_ratios = rng.uniform(0, 2, count)
    accuracy = 0.5 + slope * log_ratios + noise * rng.standard_normal(count)
    sizes = rng.integers(100, 100_000, count)
    return [pair(x, y, int(p)) for x, y, p in zip(log_ratios, accuracy, sizes, strict=True)]


def test_correlations_agree_with_scipy_and_ignore_bounds() -> None:
    exact = random_pairs(12, 0.1, 0.05)
    x, y = [p.log_ratio for p in exact], [p.test_accuracy for p in exact]
    by_name = {c.name: c for c in correlations(exact, "test_accuracy")}
    assert by_name["Pearson"].value == pytest.approx(stats.pearsonr(x, y).statistic)
    assert by_name["Spearman"].value == pytest.approx(stats.spearmanr(x, y).statistic)
    assert by_name["Kendall"].value == pytest.approx(stats.kendalltau(x, y).statistic)
    for correlation in by_name.values():
        assert correlation.lower <= correlation.value <= correlation.upper
    bounds = [replace(pair(9.0, 0.01 * i, 10**i), bound="lower") for i in range(1, 9)]
    of_gap = {c.name: c for c in correlations([*bounds, *exact], "gap")}
    for name, correlation in by_name.items():
        assert of_gap[name].value == pytest.approx(-correlation.value)
    assert uncensored_pairs([*bounds, *exact]) == exact
    assert pairs_by_family([*bounds, *exact]) == pairs_by_family(exact)
    assert pairs_by_family(bounds) == {}
    assert correlations(bounds, "gap") == []


def test_partial_correlation_removes_the_effect_of_size() -> None:
    rng = np.random.default_rng(2)
    sizes = np.exp(rng.uniform(3, 12, 200))
    pairs = [
        pair(0.2 * s + 0.1 * rng.standard_normal(), 0.05 * s + 0.02 * rng.standard_normal(), int(p))
        for s, p in zip(np.log(sizes), sizes, strict=True)
    ]
    values = {c.name: c.value for c in correlations(pairs, "test_accuracy")}
    assert values["Pearson"] > 0.9
    assert abs(values["Pearson given log parameters"]) < 0.2


def test_jackknife_range_shows_that_one_model_causes_a_correlation() -> None:
    uncorrelated = [pair(0.1 * (i % 3), 0.5 + 0.02 * (i // 3), 100 + i) for i in range(9)]
    pairs = [*uncorrelated, pair(3.0, 0.95, 500)]
    pearson, *_ = correlations(pairs, "test_accuracy")
    without_one = []
    for removed in pairs:
        kept = [p for p in pairs if p is not removed]
        x, y = [p.log_ratio for p in kept], [p.test_accuracy for p in kept]
        without_one.append(stats.pearsonr(x, y).statistic)
    assert pearson.name == "Pearson"
    assert pearson.jackknife_min == pytest.approx(min(without_one))
    assert pearson.jackknife_max == pytest.approx(max(without_one))
    assert pearson.value > 0.9
    assert abs(pearson.jackknife_min) < 0.1


def test_jackknife_range_is_undefined_if_the_other_models_do_not_vary() -> None:
    constant = [pair(0.1 * i, 0.8, 100 + i) for i in range(5)]
    results = correlations([*constant, pair(3.0, 0.95, 500)], "test_accuracy")
    assert results[0].value > 0.9
    assert {correlation.jackknife_text for correlation in results} == {"not defined"}


def test_few_models_or_constant_values_give_no_correlation() -> None:
    assert correlations(random_pairs(MIN_PAIRS - 1, 0.1, 0.1), "gap") == []
    of_four_models = correlations(random_pairs(MIN_PAIRS, 0.1, 0.1), "gap")
    assert len(of_four_models) == 4
    jackknife_texts = {correlation.jackknife_text for correlation in of_four_models}
    assert jackknife_texts == {"not defined"}, "three models are too few"
    constant_gap = [replace(p, gap=0.0, params=100) for p in random_pairs(8, 0.1, 0.05)]
    assert correlations(constant_gap, "gap") == []
    names = {correlation.name for correlation in correlations(constant_gap, "test_accuracy")}
    assert names == {"Pearson", "Spearman", "Kendall"}


def evaluated_point(
    point: Point, outcomes: Sequence[Outcome], params: int, **changes: object
) -> PointStatus:
    evaluation = {
        "train_accuracy": 1.0, "test_accuracy": 0.5 + params / 1000, "gap": 0.5 - params / 1000,
        "interpolated": True, "verdict": "fit", "asked": {},
        "test_loss": 1.0, "calibration_error": 0.1, **changes,
    }  # fmt: skip
    measured = measured_point(point, outcomes, params=params)
    return replace(measured, record=replace(measured.record, evaluation=evaluation))


@pytest.mark.parametrize(
    ("true", "random", "bound"),
    [
        (UNCENSORED, UNCENSORED, "none"),
        (ALL_FIT, UNCENSORED, "lower"),
        (UNCENSORED, NONE_FIT, "lower"),
        (NONE_FIT, UNCENSORED, "upper"),
        (UNCENSORED, ALL_FIT, "upper"),
        (ALL_FIT, NONE_FIT, "lower"),
        (ALL_FIT, ALL_FIT, "unknown"),
    ],
)
def test_ratio_of_censored_emcs_is_a_bound(
    true: list[tuple[int, int]], random: list[tuple[int, int]], bound: str, tmp_path: Path
) -> None:
    original, randomized = (
        one_point(tmp_path, data=f"labels: {labels}") for labels in ("original", "random")
    )
    statuses = [evaluated_point(original, true, 10), evaluated_point(randomized, random, 10)]
    (model,) = label_pairs(statuses)
    assert model.bound == bound
    if true is NONE_FIT:
        assert model.emc_original == 4, "the smallest n that failed"
    spec = generalization_figure(statuses)
    (row,) = spec["data"]["values"]
    assert row["ratio"] == pytest.approx(math.exp(model.log_ratio))
    (mark,) = (
        layer["mark"] for layer in spec["layer"] if row["bound"] in layer["transform"][0]["filter"]
    )
    assert mark["filled"] == (bound != "unknown")
    tip = float(mark["shape"][1:].split(",")[0]) if "shape" in mark else 0
    assert np.sign(tip) == {"lower": 1, "upper": -1}.get(bound, 0)


@pytest.mark.parametrize("exact", [2, 6])
def test_report_counts_omitted_pairs(exact: int, tmp_path: Path) -> None:
    swept = points_of(
        tmp_path,
        f"{DIGITS}  training: {{epochs: 500}}\n  search: {BISECTION}\ngrid:\n"
        "  model.width: [1, 2, 3, 4, 5, 6, 7, 8]\n  data.labels: [original, random]\n",
    )
    statuses = []
    for point in swept:
        width = point.model.width
        outcomes: Sequence[Outcome] = [
            (16, 0), (32, 0), (64, 5 + width), (45, 3), (38, 2), (35, 1), (33, 1),
        ]  # fmt: skip
        if point.data.labels == "original":
            outcomes = ALL_FIT if width > exact else outcomes[: 3 + width % 5]
        statuses.append(evaluated_point(point, outcomes, 10 * width))
    page = write_report(statuses, tmp_path / "report").read_text()
    assert f"{8 - exact} of 8 pairs are omitted, because their EMC is censored." in page
    assert ("all (6)" in page) == (exact == 6)
    assert ("no correlation is given" in page) == (exact == 2)


def test_pairs_are_grouped_by_family_and_pooled() -> None:
    pairs = random_pairs(10, 0.1, 0.05)
    assert list(pairs_by_family(pairs)) == ["all"]
    mixed = [*pairs, *(replace(p, family="cnn") for p in pairs[:5])]
    mixed += [replace(p, family="vit") for p in pairs[: MIN_PAIRS - 1]]
    counts = {name: len(models) for name, models in pairs_by_family(mixed).items()}
    assert counts == {"all": 18, "mlp": 10, "cnn": 5}


@pytest.fixture
def two_models(tmp_path: Path) -> list[PointStatus]:
    """Two models of three seeds, with original labels and an evaluation, and with random labels."""
    swept = points_of(
        tmp_path,
        f"{DIGITS}grid:\n  model.width: [4, 8]\n  data.labels: [original, random]\n"
        "  seed: [0, 1, 2]\n",
    )
    statuses = []
    for point in swept:
        params, accuracy = 100 * point.model.width, 0.5 + 0.1 * point.seed
        measured = evaluated_point(point, UNCENSORED, params, test_accuracy=accuracy, gap=0.2)
        if point.data.labels == "random":
            measured = without_evaluation(measured)
        emc = (100 if point.data.labels == "random" else 1000) * (point.seed + 1)
        estimate = replace(measured.estimate, emc=emc, censored="none")
        statuses.append(replace(measured, estimate=estimate))
    return statuses


def without_evaluation(measured: PointStatus) -> PointStatus:
    return replace(measured, record=replace(measured.record, evaluation=None))


def test_seeds_of_one_model_are_averaged_into_one_pair(two_models: list[PointStatus]) -> None:
    pairs = label_pairs(two_models)
    assert [p.params for p in pairs] == [400, 800]
    for model in pairs:
        assert model.emc_original == round(1000 * 6 ** (1 / 3))
        assert model.emc_original == pytest.approx(10 * model.emc_random, rel=0.01)
        assert model.test_accuracy == pytest.approx(0.6)
    assert label_pairs([*two_models, *map(without_evaluation, two_models)]) == pairs


def test_pairs_omit_training_runs_that_did_not_interpolate(two_models: list[PointStatus]) -> None:
    assert interpolation_text(two_models) == (
        "6 of 6 training runs for evaluation interpolated (train accuracy 1)."
    )
    evaluations = [s.record.evaluation for s in two_models if s.record.evaluation]
    evaluations[2] |= {"interpolated": False, "verdict": "unconverged", "test_accuracy": 0.1}
    small, large = label_pairs(two_models)
    assert small.test_accuracy == pytest.approx(0.55), "the mean of the other two seeds"
    assert large.test_accuracy == pytest.approx(0.6)
    for evaluation in evaluations[:2]:
        evaluation |= {"interpolated": False, "verdict": "not_fit"}
    assert [p.params for p in label_pairs(two_models)] == [800]
    text = interpolation_text([*two_models, *two_models])
    assert text.startswith("3 of 6 training runs")
    assert "3 did not (2 not_fit, 1 unconverged)" in text
    assert "these training runs are omitted from the correlations" in text
    for evaluation in evaluations:
        evaluation |= {"interpolated": False, "verdict": "unconverged"}
    assert label_pairs(two_models) == []
    text = interpolation_text(two_models)
    assert text.startswith("0 of 6 training runs")
    assert "6 did not (6 unconverged)" in text
    assert "no correlation is given" in text
    assert interpolation_text([*map(without_evaluation, two_models)]) == ""
