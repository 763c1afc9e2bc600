"""Comparisons of simulated EMCs: verdicts, intervals, pairing and power laws."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from flexhpc.analysis.comparison import compare_as_specified, compare_points, suggested_comparison
from flexhpc.analysis.effect import (
    ERROR_RATE,
    Effect,
    effects_of,
    sufficient_chance,
    with_verdicts,
)
from flexhpc.analysis.likelihood import (
    LOG_EMC,
    LOG_RATIO,
    likelihood_of,
    open_ends,
    ratio_likelihood,
)
from flexhpc.analysis.scaling_law import power_laws
from flexhpc.config import Point
from flexhpc.config.sections.compare import Compare, Decide
from flexhpc.errors import InputError
from flexhpc.search.fit_curve import posterior
from flexhpc.store.status import PointStatus, status_with_run_name
from tests.analysis.builders import (
    DIGITS,
    activation_points,
    measured_point,
    one_point,
    points_of,
    simulate_point,
    simulate_sweep,
    swept_points,
)
from tests.conftest import FULL, Cli

REPETITIONS = 200 if FULL else 8
BY_ACTIVATION = Compare(by="model.activation")


def effects(statuses: Sequence[PointStatus], compare: Compare) -> list[Effect]:
    return with_verdicts(effects_of(statuses, compare))


def effect_of(**values: object) -> Effect:
    return Effect(
        by="k", value="a", baseline="b", within={}, pairs=2, bounds=0, unpaired=0, **values,
    )  # fmt: skip


def emc_of_activation(ratio: float, per_width: float = 25.0) -> Callable[[Point], float]:
    """Return a true EMC proportional to width, which is larger by a ratio with tanh."""

    def true_emc(point: Point) -> float:
        tanh = point.swept["model.activation"] == "tanh"
        return per_width * point.swept["model.width"] * (ratio if tanh else 1.0)

    return true_emc


@pytest.mark.parametrize(
    ("size_ratios", "distinct_sizes", "text"),
    [
        ((2.0, 1.2, 0.9), True, "2.00 at the smallest size, 0.90 at the largest"),
        ((0.8, 1.3, 0.7), True, "0.70 to 1.30 depending on the size"),
        ((2.0, 0.9), False, "0.90 to 2.00 depending on the size"),
        ((1.1, 1.2), True, ""),
        ((0.999, 1.3), True, ""),
        ((math.nan, 0.5), True, ""),
        ((0.5,), True, ""),
        ((), False, ""),
    ],
)
def test_reversal_text_reports_ratios_on_both_sides_of_one(
    size_ratios: tuple[float, ...], distinct_sizes: bool, text: str
) -> None:
    assert effect_of(size_ratios=size_ratios, distinct_sizes=distinct_sizes).reversal_text == text


SIMULATIONS = {
    "no effect": (1.0, {"scatter": 0.1}, {"larger", "smaller"}),
    "ten per cent": (1.1, {"scatter": 0.1}, {"smaller"}),
    "twice": (2.0, {"scatter": 0.2}, {"smaller", "the same within 10 %"}),
    "half": (0.5, {"scatter": 0.0}, {"larger", "the same within 10 %"}),
    "censored": (2.0, {"scatter": 0.1, "n_limit": 300}, {"smaller", "the same within 10 %"}),
    "lapses": (1.0, {"scatter": 0.1, "lapse": 0.15}, {"larger", "smaller"}),
}
"""True ratio, arguments of the simulation, and wrong verdicts."""


@pytest.mark.sweeps
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", SIMULATIONS)
def test_verdicts_and_intervals_are_calibrated(name: str, tmp_path: Path) -> None:
    ratio, settings, wrong = SIMULATIONS[name]
    rng = np.random.default_rng(sum(map(ord, name)))
    points = activation_points(tmp_path, 5)
    verdicts, covered = [], 0
    for _ in range(REPETITIONS):
        statuses = simulate_sweep(points, emc_of_activation(ratio), rng, **settings)
        (effect,) = effects(statuses, BY_ACTIVATION)
        verdicts.append(effect.verdict)
        covered += (effect.low or 0) <= ratio <= (effect.high or np.inf)
    assert sum(verdict in wrong for verdict in verdicts) <= max(1, ERROR_RATE * REPETITIONS)
    assert covered >= (0.85 if FULL else 0.6) * REPETITIONS
    if ratio in (2.0, 0.5):
        correct = "larger" if ratio > 1 else "smaller"
        assert verdicts.count(correct) >= 0.9 * REPETITIONS


@pytest.mark.sweeps
def test_interval_covers_mean_of_ratios_that_differ_between_sizes(tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    points = activation_points(tmp_path, 4)
    covered = wrong = 0
    repetitions = 100 if FULL else 8
    for _ in range(repetitions):
        ratios = {width: math.exp(rng.normal(0, 0.3)) for width in (4, 8, 16)}

        def true_emc(point: Point, ratios: dict[int, float] = ratios) -> float:
            return emc_of_activation(ratios[point.swept["model.width"]])(point)

        (effect,) = effects(simulate_sweep(points, true_emc, rng, scatter=0.05), BY_ACTIVATION)
        mean = math.exp(np.mean([math.log(ratio) for ratio in ratios.values()]))
        covered += effect.low <= mean <= effect.high
        wrong += effect.verdict == ("larger" if mean < 1 else "smaller")
        assert effect.min_ratio < effect.ratio < effect.max_ratio
        assert effect.min_ratio == pytest.approx(min(ratios.values()), rel=0.3)
    assert covered >= (0.85 if FULL else 0.6) * repetitions
    assert wrong <= max(1, ERROR_RATE * repetitions)


def test_three_pairs_with_nearly_equal_emcs_give_no_verdict(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    points = activation_points(tmp_path, 1)
    statuses = simulate_sweep(points, emc_of_activation(1.05), rng, scatter=0.1)
    (effect,) = effects(statuses, BY_ACTIVATION)
    assert (effect.verdict, effect.pairs, effect.bounds) == ("not decided", 3, 0)
    assert effect.unpaired == 0
    assert effect.more_pairs is not None
    assert "more pairs)" in effect.verdict_text
    assert effect.low < 1 < effect.high


def test_censored_emcs_bound_the_ratio(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    points = activation_points(tmp_path, 2)
    emc_and_limit = {"tanh": (5000.0, 300), "relu": (100.0, 9999)}
    tanh_censored = []
    for point in points:
        emc, limit = emc_and_limit[point.swept["model.activation"]]
        tanh_censored.append(simulate_point(point, emc, rng, n_limit=limit))
    (effect,) = effects(tanh_censored, BY_ACTIVATION)
    assert (effect.high, effect.verdict) == (None, "larger")
    assert 2 < effect.low < 4.5, "every training run on all 300 samples fitted"
    assert effect.ratio_text.startswith(">= ")
    (inverse,) = effects(tanh_censored, Compare(by="model.activation", baseline="tanh"))
    assert (inverse.low, inverse.verdict) == (None, "smaller")
    assert inverse.high == pytest.approx(1 / effect.low, rel=0.05)
    both_censored = [simulate_point(point, 5000.0, rng, n_limit=300) for point in points]
    (effect,) = effects(both_censored, BY_ACTIVATION)
    assert (effect.pairs, effect.bounds, effect.verdict) == (6, 6, "not decided")
    assert effect.ratio_text == ""
    assert "both EMCs are bounds" in effect.verdict_text


def test_ratio_likelihood_agrees_with_posterior_draws(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    a, b = (simulate_point(point, 200.0, rng) for point in activation_points(tmp_path, 1)[:2])
    ratio = ratio_likelihood(likelihood_of(a), likelihood_of(b))
    draws = []
    for point in (a, b):
        curve = posterior(point.history, point.record.header.n_limit)
        draws.append(
            curve.n_at_fit_probability(0.5)[rng.choice(len(curve.weight), 40_000, p=curve.weight)]
        )
    quantiles = np.log(np.quantile(draws[0] / draws[1], [0.05, 0.5, 0.95]))
    cumulative = np.cumsum(ratio) / ratio.sum()
    np.testing.assert_allclose(
        np.interp([0.05, 0.5, 0.95], cumulative, LOG_RATIO), quantiles, atol=0.04
    )


def test_likelihood_is_open_at_the_end_where_emc_is_censored(tmp_path: Path) -> None:
    point = one_point(tmp_path)
    all_fit = likelihood_of(measured_point(point, [(min(16 * 2**i, 1000), 0) for i in range(8)]))
    assert all_fit[-1] == pytest.approx(1, abs=0.05)
    assert all_fit[np.log(200) > LOG_EMC].max() < 0.05
    rng, bayes_point = np.random.default_rng(0), activation_points(tmp_path, 1)[0]
    for emc in (20.0, 500.0):
        uncensored = likelihood_of(simulate_point(bayes_point, emc, rng, n_limit=1000))
        assert open_ends(uncensored) == (False, False)
        assert open_ends(ratio_likelihood(uncensored, all_fit)) == (True, False)
        assert open_ends(ratio_likelihood(all_fit, uncensored)) == (False, True)
    none_fit = likelihood_of(measured_point(point, [(16, 9), (8, 7), (4, 2), (2, 1), (1, 1)]))
    assert none_fit[0] > 0.5
    assert none_fit[np.log(30) < LOG_EMC].max() < 0.05


@pytest.mark.parametrize(
    ("error_probabilities", "rejected"),
    [
        ((0.006, 0.02, 0.0065, 0.9), (True, False, True, False)),
        ((0.02, 0.023), (False, False)),
        ((), ()),
    ],
)
def test_verdicts_use_holms_correction(
    error_probabilities: tuple[float, ...], rejected: tuple[bool, ...]
) -> None:
    """At 2.5 %, the smallest of four probabilities must be below 0.00625."""
    compared = [effect_of(chance_larger=1 - p / 2) for p in error_probabilities]
    verdicts = [effect.verdict for effect in with_verdicts(compared)]
    assert verdicts == ["larger" if larger else "not decided" for larger in rejected]


def test_a_repeated_comparison_counts_once(tmp_path: Path) -> None:
    statuses = swept_points(tmp_path, [40, 60], [100, 100], activation=["relu", "tanh"])
    requests = [Compare(by="model.activation"), Compare(by="model.activation", baseline="relu")]
    (expected,) = compare_points(statuses, requests[:1]).effects
    assert expected.more_pairs, "it depends on the number of comparisons"
    assert list(compare_points(statuses, requests).effects) == [expected]


@pytest.mark.parametrize("tests", [1, 3, 20])
def test_sufficient_chance_is_the_limit_of_a_verdict(tests: int) -> None:
    """The text of a probability shows on which side of the limit it is."""
    limit = sufficient_chance(tests)
    undecided = [effect_of(chance_larger=0.5)] * (tests - 1)
    for distance, verdict in ((-1, "not decided"), (1, "larger")):
        compared = effect_of(chance_larger=limit + distance * (1 - limit) / 10)
        assert with_verdicts([compared, *undecided])[0].verdict == verdict
        assert (float(compared.chance_text) > limit) == (verdict == "larger")


def test_key_determined_by_the_compared_key_may_differ_within_pairs(tmp_path: Path) -> None:
    zipped = points_of(
        tmp_path,
        f"{DIGITS}zip:\n  - {{training.optimizer: [sgd, adam], training.lr: [0.05, 0.001]}}\n"
        "grid:\n  model.width: [4, 8]\n  seed: [0, 1]\n",
    )
    rng = np.random.default_rng(1)
    statuses = [simulate_point(point, 50.0 * point.swept["model.width"], rng) for point in zipped]
    by_optimizer = Compare(by="training.optimizer")
    (effect,) = effects(statuses, by_optimizer)
    assert (effect.value, effect.baseline) == ("adam", "sgd")
    assert (effect.pairs, effect.unpaired) == (4, 0)
    (effect,) = effects(statuses[1:], by_optimizer)
    assert effect.pairs + effect.unpaired in (3, 4)
    within_seed = Compare(by="training.optimizer", within=["seed"])
    assert [effect.pairs for effect in effects(statuses, within_seed)] == [2, 2]
    with pytest.raises(InputError, match=r"training\.lrr: no point has this key; swept keys"):
        effects(statuses, Compare(by="training.lrr"))
    with pytest.raises(InputError, match=r"baseline gd: no point has training\.optimizer gd"):
        effects(statuses, Compare(by="training.optimizer", baseline="gd"))


def test_default_comparison_is_of_the_swept_key_that_is_not_a_size(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    statuses = [simulate_point(point, 100.0, rng) for point in activation_points(tmp_path, 1)]
    assert suggested_comparison(statuses) == BY_ACTIVATION
    assert suggested_comparison(statuses[:3]) is None
    spec = "name: x\ncompare:\n- {by: model.width, baseline: 8}\ngrid: {}\n"
    requested = compare_as_specified(statuses, [spec]).effects
    assert [(e.value, e.baseline) for e in requested] == [("4", "8"), ("16", "8")]
    default = compare_as_specified(statuses, ["name: x\n"]).effects
    assert [(e.value, e.baseline) for e in default] == [("tanh", "relu")]


def test_comparisons_that_differ_in_within_or_margin_are_all_kept(tmp_path: Path) -> None:
    """Width and depth have the same values."""
    statuses = swept_points(
        tmp_path, [30, 60], activation=["relu", "tanh"], width=[4, 8], depth=[4, 8]
    )
    requests = [
        Compare(by="model.activation", within=["model.width"]),
        Compare(by="model.activation", within=["model.depth"]),
        Compare(by="model.activation", within=["model.depth"], decide=Decide(margin=0.2)),
    ]
    compared = compare_points(statuses, requests).effects
    assert [(dict(effect.within), effect.margin) for effect in compared] == [
        ({"model.width": "4"}, 0.1), ({"model.width": "8"}, 0.1),
        ({"model.depth": "4"}, 0.1), ({"model.depth": "8"}, 0.1),
        ({"model.depth": "4"}, 0.2), ({"model.depth": "8"}, 0.2),
    ]  # fmt: skip


def test_power_law_recovers_the_exponent(tmp_path: Path) -> None:
    """The largest EMCs may be censored."""
    rng = np.random.default_rng(11)
    points = activation_points(tmp_path, 4)

    def true_emc(point: Point) -> float:
        return 20.0 * point.swept["model.width"] ** 0.8

    statuses = simulate_sweep(points, true_emc, rng, scatter=0.1)
    laws = power_laws(statuses, ["model.activation"])
    assert [law.within["model.activation"] for law in laws] == ["relu", "tanh"]
    for law in laws:
        assert law.low < 0.8 < law.high
        assert law.high - law.low < 0.5
        low, middle, high = law.parameters_for(20.0 * 8**0.8)
        assert low < 800 < high
        assert middle == pytest.approx(800, rel=0.15)
    some_censored = simulate_sweep(points, true_emc, rng, scatter=0.1, n_limit=110)
    (law,) = power_laws(some_censored, [])
    assert law.bounds > 0
    assert law.low < 0.8 < (law.high or np.inf)
    all_censored = simulate_sweep(points, lambda _: 9999.0, rng, scatter=0, n_limit=50)
    (law,) = power_laws(all_censored, [])
    assert (law.low, law.high, law.slope_text) == (None, None, "not known")


@pytest.mark.full_budget
@pytest.mark.sweeps
def test_command_and_report_show_comparisons(cli: Cli, profile: Path, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "name: c\nfixed:\n  data: {source: digits, labels: random, n_max: 200}\n"
        "  model: {family: mlp, depth: 1}\n  training: {optimizer: adam, lr: 1e-2, epochs: 60}\n"
        "  search: {policy: bayes, start: 16}\n"
        "compare: {by: model.width, baseline: 8}\ngrid:\n  model.width: [4, 8]\n  seed: [0, 1]\n"
    )
    cli("sweep", "c.yaml", "--profile", profile)
    run = tmp_path / "runs" / "c"
    assert "<h2>Comparisons</h2>" in (run / "report" / "index.html").read_text()
    assert (run / "report" / "ratios.pdf").stat().st_size > 1000
    (row,) = json.loads(cli("compare", run, "--by", "seed", "--json").stdout)
    assert (row["value"], row["baseline"], row["pairs"]) == ("1", "0", 2)
    assert 0 < row["ratio_lo"] < row["ratio"] < row["ratio_hi"]
    table = cli("compare", run).stdout
    assert "model.width" in table
    assert "verdict" in table
    error = cli("compare", run, "--by", "nosuch", check=2).stderr
    assert "no point has this key" in error
    slopes = cli("compare", run, "--slopes", "--by", "seed").stdout
    assert "three or more network sizes" in slopes


def test_points_are_paired_within_their_run(tmp_path: Path) -> None:
    """The order of the runs has no effect."""
    rng = np.random.default_rng(4)
    points = activation_points(tmp_path, 1)
    low, high = (
        [
            status_with_run_name(s, name)
            for s in simulate_sweep(points, emc_of_activation(1.0, per_width), rng, scatter=0)
        ]
        for name, per_width in (("low", 25.0), ("high", 75.0))
    )
    (effect,) = effects([*low, *high], BY_ACTIVATION)
    (reordered,) = effects([*high, *low], BY_ACTIVATION)
    assert (effect.pairs, effect.unpaired) == (reordered.pairs, reordered.unpaired) == (6, 0)
    assert effect.low < 1 < effect.high
    assert reordered.ratio == pytest.approx(effect.ratio, rel=0.02)
    (by_run,) = effects([*low, *high], Compare(by="run"))
    assert (by_run.value, by_run.pairs, by_run.verdict) == ("high", 6, "larger")
    assert by_run.low < 3 < by_run.high


def test_unmeasured_points_are_not_paired(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    points = activation_points(tmp_path, 1)
    measured = simulate_sweep(points, emc_of_activation(1.0), rng, scatter=0)
    waiting = [PointStatus(point=point, state="waiting") for point in points]
    unfinished = [measured[0], *waiting[1:5], measured[5]]  # relu of width 4, tanh of width 16
    (effect,) = effects(unfinished, BY_ACTIVATION)
    assert (effect.pairs, effect.unpaired, effect.verdict_text) == (0, 1, "no pairs")
    assert effects([*waiting[:3], *measured[3:]], BY_ACTIVATION) == [], "no point at the baseline"
    assert effects(waiting, BY_ACTIVATION) == []
    spec = "name: x\ncompare:\n- {by: model.activation}\ngrid: {}\n"
    requested = compare_as_specified(unfinished, [spec]).effects
    assert [effect.verdict_text for effect in requested] == ["no pairs"]
    default = compare_as_specified(unfinished, ["name: x\n"]).effects
    assert not default, "no default comparison without pairs"


def test_sections_swept_as_a_whole_are_compared_for_growth_policy(tmp_path: Path) -> None:
    points = points_of(
        tmp_path,
        f"{DIGITS}  search: {{policy: growth, start: 16, growth: 2}}\ngrid:\n  training:\n"
        "    - {optimizer: sgd, steps: 200, lr: 0.1}\n"
        "    - {optimizer: sgd, steps: 200, lr: 0.1, weight_decay: 0.01}\n",
    )
    statuses = [measured_point(p, [(16, 0), (32, 0), (64, 3 + i)]) for i, p in enumerate(points)]
    for baseline in ({"optimizer": "sgd", "steps": 200, "lr": 0.1}, None, "sgd"):
        (effect,) = effects(statuses, Compare(by="training", baseline=baseline))
        assert (effect.value, effect.baseline) == ("weight_decay=0.01", "sgd")
        assert effect.pairs == 1
    with pytest.raises(InputError, match=r"training\.ratee: no point has this key"):
        effects(statuses, Compare(by="training", within=["training.ratee"]))
    with pytest.raises(InputError, match="the compared key cannot be in within"):
        effects(statuses, Compare(by="training", within=["training"]))


def test_ratio_of_ten_thousand_is_in_the_interval(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    points = activation_points(tmp_path, 1)[::3]
    emcs = (3.0, 30_000.0)
    statuses = [simulate_point(point, emc, rng) for point, emc in zip(points, emcs, strict=True)]
    (effect,) = effects(statuses, BY_ACTIVATION)
    assert (effect.verdict, effect.pairs) == ("larger", 1)
    assert effect.low < 10_000 < effect.high
