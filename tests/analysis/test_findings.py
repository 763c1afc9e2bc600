"""Information, and the correlation of EMC with generalization: against what is known."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
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
from flexhpc.analysis.information import label_information, max_label_information
from flexhpc.analysis.report import write_report
from flexhpc.analysis.results import row_of
from flexhpc.config import Point
from flexhpc.search import ProbeResult
from flexhpc.store.status import PointStatus
from tests.analysis.made import points, points_of, status
from tests.analysis.test_reasons import ALL_FIT, NONE_FIT


def test_a_perfect_fit_takes_up_all_of_its_labels() -> None:
    """A perceptron at its capacity, n = 2 d with two classes, holds 2 bits per parameter."""
    assert label_information(400, 1.0, 2) / 200 == 2
    assert label_information(100, 1.0, 10) == pytest.approx(100 * math.log2(10))


@given(st.integers(1, 10**6), st.integers(2, 100), st.floats(0, 1))
def test_information_is_that_of_a_symmetric_channel(n: int, classes: int, accuracy: float) -> None:
    """Against the sum over the joint distribution of label and answer."""
    found = label_information(n, accuracy, classes)
    if accuracy <= 1 / classes:
        assert found == 0
        return
    joint = np.full((classes, classes), (1 - accuracy) / (classes - 1) / classes)
    np.fill_diagonal(joint, accuracy / classes)
    some = joint[joint > 0]
    exact = n * float((some * np.log2(some * classes**2)).sum())
    assert found == pytest.approx(exact, rel=1e-6, abs=1e-6 * n)


def result(n: int, missed: int, *, rejected: bool = False) -> ProbeResult:
    verdict = "not_fit" if missed else "fit"
    return ProbeResult(n=n, repeat=0, verdict=verdict, n_errors=missed, cost=n, rejected=rejected)


def test_one_lucky_probe_does_not_make_the_maximum() -> None:
    """Ten training runs near one n, of which nine miss half: the mean counts, not the best."""
    lucky, others = result(200, 0), [result(200 + i, 100 + i // 2) for i in range(1, 10)]
    alone, poor = label_information(200, 1.0, 2), label_information(209, 105 / 209, 2)
    assert max_label_information([lucky, *others], 2).most == pytest.approx(alone / 10, rel=0.05)
    assert poor < 0.01
    far = result(2_000, 1_000)
    assert max_label_information([lucky, far], 2).most == alone, (
        "probes far away say nothing of this n"
    )


def test_the_maximum_is_over_n() -> None:
    """It lies beyond the EMC here: 5 % missed of twice as many samples hold more."""
    fits, beyond, far = [result(100, 0)] * 3, [result(200, 10)] * 3, [result(1000, 890)] * 3
    found = max_label_information([*fits, *beyond, *far], 10).most
    assert found == pytest.approx(label_information(200, 0.95, 10))
    assert max_label_information([result(95, 0), result(100, 0)], 10).most == pytest.approx(
        100 * math.log2(10)
    )


def test_the_interval_is_students_t_over_similar_n() -> None:
    """Of three training runs at the best n; one has no interval, rejected ones are ignored."""
    trainings = [result(200, missed) for missed in (8, 10, 14)]
    bits = [label_information(200, 1 - missed / 200, 10) for missed in (8, 10, 14)]
    stored = max_label_information([*trainings, result(20, 0)], 10)
    low, high = stats.t.interval(0.9, 2, np.mean(bits), stats.sem(bits))
    assert (stored.low, stored.high) == pytest.approx((low, high))
    assert stored.most == pytest.approx(np.mean(bits))
    assert stored.per(10).high == pytest.approx(high / 10)
    assert max_label_information([result(20, 0)], 10).low is None
    assert max_label_information([result(50, 0), result(900, 0, rejected=True)], 2).most == 50
    assert max_label_information([result(50, 1, rejected=True)], 2) is None
    assert max_label_information([], 2) is None


@pytest.mark.parametrize("labels", ["random", "original", "corrupted"])
def test_bits_per_parameter_are_of_random_labels_only(labels: str, tmp_path: Path) -> None:
    data = f"labels: {labels}" + (", corruption: 0.5" if labels == "corrupted" else "")
    point = points(tmp_path, data=data)[0]
    row = row_of(status(point, [(16, 0), (32, 0)], params=50, classes=10))
    wanted = 32 * math.log2(10) / 50 if labels == "random" else None
    assert row["bits_per_param"] == (pytest.approx(wanted) if wanted else None)
    assert row_of(status(point, [(16, 0)], classes=0))["bits_per_param"] is None, "not stored"


def pair(excess: float, accuracy: float, params: int) -> Pair:
    return Pair(
        name="", family="mlp", params=params, emc_true=round(1e6 * math.exp(excess)),
        emc_random=10**6, test_accuracy=accuracy, gap=1 - accuracy,
    )  # fmt: skip


def some_pairs(count: int, slope: float, noise: float) -> list[Pair]:
    rng = np.random.default_rng(1)
    excess = rng.uniform(0, 2, count)
    accuracy = 0.5 + slope * excess + noise * rng.standard_normal(count)
    sizes = rng.integers(100, 100_000, count)
    return [pair(x, y, int(p)) for x, y, p in zip(excess, accuracy, sizes, strict=True)]


def test_correlations_agree_with_scipy_and_ignore_bounds() -> None:
    found = some_pairs(12, 0.1, 0.05)
    x, y = [p.excess for p in found], [p.test_accuracy for p in found]
    lines = {line.name: line for line in correlations(found, "test_accuracy")}
    assert lines["Pearson"].value == pytest.approx(stats.pearsonr(x, y).statistic)
    assert lines["Spearman"].value == pytest.approx(stats.spearmanr(x, y).statistic)
    assert lines["Kendall"].value == pytest.approx(stats.kendalltau(x, y).statistic)
    for line in lines.values():
        assert line.lower <= line.value <= line.upper
    wild = [replace(pair(9.0, 0.01 * i, 10**i), bound="lower") for i in range(1, 9)]
    gap = {line.name: line for line in correlations([*wild, *found], "gap")}
    for name, line in lines.items():
        assert gap[name].value == pytest.approx(-line.value)
    assert uncensored_pairs([*wild, *found]) == found
    assert pairs_by_family([*wild, *found]) == pairs_by_family(found)
    assert pairs_by_family(wild) == {}
    assert correlations(wild, "gap") == []


def test_an_effect_of_size_alone_vanishes_given_size() -> None:
    rng = np.random.default_rng(2)
    sizes = np.exp(rng.uniform(3, 12, 200))
    logs = np.log(sizes)
    found = [
        pair(0.2 * s + 0.1 * rng.standard_normal(), 0.05 * s + 0.02 * rng.standard_normal(), int(p))
        for s, p in zip(logs, sizes, strict=True)
    ]
    lines = {line.name: line.value for line in correlations(found, "test_accuracy")}
    assert lines["Pearson"] > 0.9
    assert abs(lines["Pearson given log parameters"]) < 0.2


def test_a_correlation_that_one_model_makes_is_seen_without_it() -> None:
    flat = [pair(0.1 * (i % 3), 0.5 + 0.02 * (i // 3), 100 + i) for i in range(9)]
    found = [*flat, pair(3.0, 0.95, 500)]
    line = {line.name: line for line in correlations(found, "test_accuracy")}["Pearson"]
    direct = [
        stats.pearsonr(
            [p.excess for p in found if p is not out],
            [p.test_accuracy for p in found if p is not out],
        ).statistic
        for out in found
    ]
    assert line.least == pytest.approx(min(direct))
    assert line.most == pytest.approx(max(direct))
    assert line.value > 0.9
    assert abs(line.least) < 0.1


def test_a_correlation_that_is_nothing_without_one_model_is_said_to_be_so() -> None:
    same = [pair(0.1 * i, 0.8, 100 + i) for i in range(5)]
    lines = correlations([*same, pair(3.0, 0.95, 500)], "test_accuracy")
    assert lines[0].value > 0.9
    assert {line.without_text for line in lines} == {"not defined"}


def test_few_models_or_constant_values_give_no_correlation() -> None:
    assert correlations(some_pairs(MIN_PAIRS - 1, 0.1, 0.1), "gap") == []
    few = correlations(some_pairs(MIN_PAIRS, 0.1, 0.1), "gap")
    assert len(few) == 4
    assert {line.without_text for line in few} == {"not defined"}, "three models are too few"
    same_gap = [replace(p, gap=0.0, params=100) for p in some_pairs(8, 0.1, 0.05)]
    assert correlations(same_gap, "gap") == []
    names = {line.name for line in correlations(same_gap, "test_accuracy")}
    assert names == {"Pearson", "Spearman", "Kendall"}


def evaluated(point: Point, outcomes: list[tuple[int, int]], params: int) -> PointStatus:
    found = status(point, outcomes, params=params)
    evaluation = {
        "train_accuracy": 1.0, "test_accuracy": 0.5 + params / 1000, "gap": 0.5 - params / 1000,
        "interpolated": True, "verdict": "fit", "asked": {},
        "test_loss": 1.0, "calibration_error": 0.1,
    }  # fmt: skip
    return replace(found, record=replace(found.record, evaluation=evaluation))


SOME_FIT = [(16, 0), (32, 0), (64, 5), (45, 3)]


@pytest.mark.parametrize(
    ("true", "random", "bound"),
    [
        (SOME_FIT, SOME_FIT, "none"),
        (ALL_FIT, SOME_FIT, "lower"),
        (SOME_FIT, NONE_FIT, "lower"),
        (NONE_FIT, SOME_FIT, "upper"),
        (SOME_FIT, ALL_FIT, "upper"),
        (ALL_FIT, NONE_FIT, "lower"),
        (ALL_FIT, ALL_FIT, "unknown"),
    ],
)
def test_which_side_of_a_ratio_is_bounded(
    true: list[tuple[int, int]], random: list[tuple[int, int]], bound: str, tmp_path: Path
) -> None:
    original, other = (points(tmp_path, data=f"labels: {x}")[0] for x in ("original", "random"))
    statuses = [evaluated(original, true, 10), evaluated(other, random, 10)]
    (found,) = label_pairs(statuses)
    assert (found.bound, found.censored) == (bound, bound != "none")
    if true is NONE_FIT:
        assert found.emc_true == 4, "below 4 is what is known"
    spec = generalization_figure(statuses)
    (row,) = spec["data"]["values"]
    assert row["ratio"] == pytest.approx(math.exp(found.excess))
    (mark,) = (
        one["mark"] for one in spec["layer"] if row["bound"] in one["transform"][0]["filter"]
    )
    assert mark["filled"] == (bound == "none")
    tip = float(mark["shape"][1:].split(",")[0]) if "shape" in mark else 0
    assert np.sign(tip) == {"lower": 1, "upper": -1}.get(bound, 0)


@pytest.mark.parametrize("exact_ones", [2, 6])
def test_the_report_counts_the_pairs_that_are_left_out(exact_ones: int, tmp_path: Path) -> None:
    swept = points_of(
        tmp_path,
        "fixed:\n  data: {source: digits}\n  model: {family: mlp, depth: 1}\n"
        "  search: {policy: bisection, start: 16}\ngrid:\n  model.width: [1, 2, 3, 4, 5, 6, 7, 8]\n"
        "  data.labels: [original, random]\n",
    )
    statuses = []
    for point in swept:
        true = point.data.labels == "original"
        fits = true and point.model.width > exact_ones
        top = [(16, 0), (32, 0), (64, 5 + point.model.width), (45, 3), (38, 2), (35, 1), (33, 1)]
        cut = top[: 3 + point.model.width % 5] if true else top
        statuses.append(evaluated(point, ALL_FIT if fits else cut, 10 * point.model.width))
    page = write_report("x", statuses, [], tmp_path / "report").read_text()
    assert f"{8 - exact_ones} of 8 pairs are omitted, because their EMC is censored." in page
    assert ("all (6)" in page) == (exact_ones == 6)
    assert ("no correlation is given" in page) == (exact_ones == 2)


def test_correlations_within_a_family_and_pooled() -> None:
    found = some_pairs(10, 0.1, 0.05)
    assert list(pairs_by_family(found)) == ["all"]
    mixed = [*found, *(replace(p, family="cnn") for p in found[:5])]
    mixed += [replace(p, family="vit") for p in found[: MIN_PAIRS - 1]]
    assert {k: len(v) for k, v in pairs_by_family(mixed).items()} == {
        "all": 18,
        "mlp": 10,
        "cnn": 5,
    }


def some_statuses(tmp_path: Path) -> list[SimpleNamespace]:
    """Two models of three seeds, with original and with random labels."""
    swept = points_of(
        tmp_path,
        "fixed:\n  data: {source: mnist}\n  model: {family: mlp}\ngrid:\n"
        "  model.width: [4, 8]\n  data.labels: [original, random]\n  seed: [0, 1, 2]\n",
    )
    statuses = []
    for point in swept:
        true = point.data.labels == "original"
        emc = (1000 if true else 100) * (point.seed + 1)
        header = SimpleNamespace(params=point.model.width * 100)
        evaluation = {
            "test_accuracy": 0.5 + 0.1 * point.seed, "gap": 0.2, "interpolated": True,
            "verdict": "fit", "asked": {"n": 9},
        }  # fmt: skip
        record = SimpleNamespace(header=header, evaluation=evaluation if true else None)
        estimate = SimpleNamespace(emc=emc, censored="none")
        statuses.append(SimpleNamespace(point=point, record=record, estimate=estimate))
    return statuses


def test_seeds_of_one_model_are_one_pair(tmp_path: Path) -> None:
    statuses = some_statuses(tmp_path)
    found = label_pairs(statuses)
    assert [p.params for p in found] == [400, 800]
    for one in found:
        assert one.emc_true == round(1000 * 6 ** (1 / 3))
        assert one.emc_true == pytest.approx(10 * one.emc_random, rel=0.01)
        assert one.test_accuracy == pytest.approx(0.6)
    twice = [*statuses, *(SimpleNamespace(**vars(s)) for s in statuses)]
    for again in twice[len(statuses) :]:
        again.record = SimpleNamespace(header=again.record.header, evaluation=None)
    assert label_pairs(twice) == found


def test_trainings_that_did_not_interpolate_are_left_out_and_counted(tmp_path: Path) -> None:
    statuses = some_statuses(tmp_path)
    assert interpolation_text(statuses) == (
        "6 of 6 training runs behind test accuracy and gap interpolated (train accuracy 1)."
    )
    trained = [s.record.evaluation for s in statuses if s.record.evaluation]
    trained[2] |= {"interpolated": False, "verdict": "unconverged", "test_accuracy": 0.1}
    small, large = label_pairs(statuses)
    assert small.test_accuracy == pytest.approx(0.55), "the mean of the two seeds that are left"
    assert large.test_accuracy == pytest.approx(0.6)
    for one in trained[:2]:
        one |= {"interpolated": False, "verdict": "not_fit"}
    assert [p.params for p in label_pairs(statuses)] == [800]
    said = interpolation_text([*statuses, *statuses])
    assert said.startswith("3 of 6 training runs")
    assert "3 did not (2 not_fit, 1 unconverged)" in said
    assert "correlations omit 3" in said
    for one in trained:
        one |= {"interpolated": False, "verdict": "unconverged"}
    assert label_pairs(statuses) == []
    assert interpolation_text(statuses).startswith("0 of 6 training runs")
    assert "6 did not (6 unconverged)" in interpolation_text(statuses)
    assert "no correlation is given" in interpolation_text(statuses)
    for one in statuses:
        one.record.evaluation = None
    assert interpolation_text(statuses) == ""
