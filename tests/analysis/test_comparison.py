"""Verdicts on EMCs whose truth is planted, and what is compared with what."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from flexhpc.analysis.comparison import (
    WRONG,
    Effect,
    comparisons,
    suggested_comparison,
    with_verdicts,
)
from flexhpc.analysis.comparison import effects_of as undecided
from flexhpc.analysis.likelihood import LOG_EMC, LOG_RATIO, is_open, likelihood_of, ratio_likelihood
from flexhpc.analysis.scaling_law import power_laws
from flexhpc.config import Point
from flexhpc.config.sections.compare import Compare
from flexhpc.errors import InputError
from flexhpc.search.fit_curve import posterior
from flexhpc.store.status import PointStatus, with_run_name
from tests.analysis.made import measured, planted_points, points_of, status, sweep_of
from tests.analysis.made import points as two_points
from tests.command import succeeded
from tests.conftest import FULL, Cli


def effects(*given: object) -> list[Effect]:
    return with_verdicts(undecided(*given))


def effect_of(**values: object) -> Effect:
    return Effect(
        by="k", value="a", baseline="b", within={}, pairs=2, bounds=0, unpaired=0, level=0.9,
        **values,
    )  # fmt: skip


TIMES = 200 if FULL else 8
BY = Compare(by="model.activation")


def truth(ratio: float, base: float = 25.0) -> object:
    """EMC grows with width, and is so much larger with tanh."""

    def of(point: Point) -> float:
        activation, width = point.swept["model.activation"], point.swept["model.width"]
        return base * width * (ratio if activation == "tanh" else 1.0)

    return of


@pytest.mark.parametrize(
    ("singles", "growing", "said"),
    [
        ((2.0, 1.2, 0.9), True, "2.00 at the smallest size, 0.90 at the largest"),
        ((0.8, 1.3, 0.7), True, "0.70 to 1.30 by size"),
        ((2.0, 0.9), False, "0.90 to 2.00 by size"),
        ((1.1, 1.2), True, ""),
        ((0.999, 1.3), True, ""),
        ((math.nan, 0.5), True, ""),
        ((0.5,), True, ""),
        ((), False, ""),
    ],
)
def test_changes_of_the_order(singles: tuple[float, ...], growing: bool, said: str) -> None:
    assert effect_of(singles=singles, growing=growing).turns == said


WORLDS = {
    "no effect": (1.0, {"scatter": 0.1}, {"larger", "smaller"}),
    "ten per cent": (1.1, {"scatter": 0.1}, {"smaller"}),
    "twice": (2.0, {"scatter": 0.2}, {"smaller", "the same within 10 %"}),
    "half": (0.5, {"scatter": 0.0}, {"larger", "the same within 10 %"}),
    "censored": (2.0, {"scatter": 0.1, "limit": 300}, {"smaller", "the same within 10 %"}),
    "lapses": (1.0, {"scatter": 0.1, "lapse": 0.15}, {"larger", "smaller"}),
}


@pytest.mark.sweeps
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("world", WORLDS)
def test_verdicts_are_wrong_in_one_of_twenty_at_most(world: str, tmp_path: Path) -> None:
    """And intervals hold the truth as often as they say, whatever the verdict."""
    ratio, how, wrong = WORLDS[world]
    rng = np.random.default_rng(sum(map(ord, world)))
    points = planted_points(tmp_path, 5)
    verdicts, held = [], 0
    for _ in range(TIMES):
        (found,) = effects(sweep_of(points, truth(ratio), rng, **how), BY)
        verdicts.append(found.verdict)
        held += (found.low or 0) <= ratio <= (found.high or np.inf)
    assert sum(verdict in wrong for verdict in verdicts) <= max(1, WRONG * TIMES)
    assert held >= (0.85 if FULL else 0.6) * TIMES
    if ratio in (2.0, 0.5):
        right = "larger" if ratio > 1 else "smaller"
        assert verdicts.count(right) >= 0.9 * TIMES


def test_two_seeds_decide_nothing_that_is_not_there(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    points = planted_points(tmp_path, 1)
    (found,) = effects(sweep_of(points, truth(1.05), rng, scatter=0.1), BY)
    assert (found.verdict, found.pairs, found.bounds, found.unpaired) == ("not decided", 3, 0, 0)
    assert found.more is not None
    assert "more pairs)" in found.verdict_text
    assert found.low < 1 < found.high


def test_bounds_enter_as_bounds(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    points = planted_points(tmp_path, 2)
    emc_and_limit = {"tanh": (5000.0, 300), "relu": (100.0, 9999)}
    one_side = []
    for p in points:
        emc, limit = emc_and_limit[p.swept["model.activation"]]
        one_side.append(measured(p, emc, rng, limit=limit))
    (found,) = effects(one_side, BY)
    assert (found.high, found.verdict) == (None, "larger")
    assert 2 < found.low < 4.5, "every training run on all 300 samples fitted"
    assert found.ratio_text.startswith(">= ")
    (turned,) = effects(one_side, Compare(by="model.activation", baseline="tanh"))
    assert (turned.low, turned.verdict) == (None, "smaller")
    assert turned.high == pytest.approx(1 / found.low, rel=0.05)
    both = [measured(p, 5000.0, rng, limit=300) for p in points]
    (found,) = effects(both, BY)
    assert (found.pairs, found.bounds, found.verdict) == (6, 6, "not decided")
    assert found.ratio_text == ""
    assert "both are bounds" in found.verdict_text


def test_a_ratio_is_that_of_posterior_draws(tmp_path: Path) -> None:
    """The grid and plain draws from both posteriors say the same."""
    rng = np.random.default_rng(2)
    a, b = (measured(p, 200.0, rng) for p in planted_points(tmp_path, 1)[:2])
    ratio = ratio_likelihood(likelihood_of(a), likelihood_of(b))
    drawn = []
    for one in (a, b):
        curve = posterior(one.history, one.record.header.n_limit)
        drawn.append(curve.level_set(0.5)[rng.choice(len(curve.weight), 40_000, p=curve.weight)])
    ends = np.log(np.quantile(drawn[0] / drawn[1], [0.05, 0.5, 0.95]))
    below = np.cumsum(ratio) / ratio.sum()
    np.testing.assert_allclose(np.interp([0.05, 0.5, 0.95], below, LOG_RATIO), ends, atol=0.04)


def test_a_likelihood_is_open_where_data_ended(tmp_path: Path) -> None:
    small, _ = two_points(tmp_path)
    everything = likelihood_of(status(small, [(min(16 * 2**i, 1000), 0) for i in range(8)]))
    assert everything[-1] == pytest.approx(1, abs=0.05)
    assert everything[np.log(200) > LOG_EMC].max() < 0.05
    rng, bayes = np.random.default_rng(0), planted_points(tmp_path, 1)[0]
    for emc in (20.0, 500.0):
        known = likelihood_of(measured(bayes, emc, rng, limit=1000))
        assert is_open(known) == (False, False)
        assert is_open(ratio_likelihood(known, everything)) == (True, False)
        assert is_open(ratio_likelihood(everything, known)) == (False, True)
    nothing = likelihood_of(status(small, [(16, 9), (8, 7), (4, 2), (2, 1), (1, 1)]))
    assert nothing[0] > 0.5
    assert nothing[np.log(30) < LOG_EMC].max() < 0.05


def test_verdicts_are_corrected_for_the_number_of_comparisons() -> None:
    """Holm's procedure at 2.5 %: the smallest probability of four must be below 0.00625."""
    for wrong, expected in (
        ((0.006, 0.02, 0.0065, 0.9), (True, False, True, False)), ((0.02, 0.023), (False, False)),
    ):  # fmt: skip
        compared = [effect_of(chance=1 - p / 2) for p in wrong]
        verdicts = [effect.verdict for effect in with_verdicts(compared)]
        assert verdicts == ["larger" if passed else "not decided" for passed in expected]
    assert with_verdicts([]) == []


def test_what_goes_with_a_value_alone_parts_no_pair(tmp_path: Path) -> None:
    """Optimizers with a rate of their own are compared; what else differs must be equal."""
    zipped = points_of(
        tmp_path,
        "fixed:\n  data: {source: digits, labels: random}\n  model: {family: mlp, depth: 1}\n"
        "zip:\n  - {training.optimizer: [sgd, adam], training.lr: [0.05, 0.001]}\n"
        "grid:\n  model.width: [4, 8]\n  seed: [0, 1]\n",
    )
    rng = np.random.default_rng(1)
    some = [measured(p, 50.0 * p.swept["model.width"], rng) for p in zipped]
    (found,) = effects(some, Compare(by="training.optimizer"))
    assert (found.value, found.baseline, found.pairs, found.unpaired) == ("adam", "sgd", 4, 0)
    (found,) = effects(some[1:], Compare(by="training.optimizer"))
    assert found.pairs + found.unpaired in (3, 4)
    within = Compare(by="training.optimizer", within=["seed"])
    assert [effect.pairs for effect in effects(some, within)] == [2, 2]
    with pytest.raises(InputError, match=r"training\.lrr: no point has this key; swept keys"):
        effects(some, Compare(by="training.lrr"))
    with pytest.raises(InputError, match=r"baseline gd: no point has training\.optimizer gd"):
        effects(some, Compare(by="training.optimizer", baseline="gd"))


def test_what_a_sweep_suggests(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    some = [measured(p, 100.0, rng) for p in planted_points(tmp_path, 1)]
    assert suggested_comparison(some) == Compare(by="model.activation")
    assert suggested_comparison(some[:3]) is None
    spec = "name: x\ncompare:\n- {by: model.width, baseline: 8}\ngrid: {}\n"
    assert [(e.value, e.baseline) for e in comparisons(some, [spec])] == [("4", "8"), ("16", "8")]
    assert [(e.value, e.baseline) for e in comparisons(some, ["name: x\n"])] == [("tanh", "relu")]


def test_a_planted_exponent_is_found(tmp_path: Path) -> None:
    """Also where the largest EMCs are bounds; and the parameters for n are those of the law."""
    rng = np.random.default_rng(7)
    points = planted_points(tmp_path, 4)

    def law(point: Point) -> float:
        return 20.0 * point.swept["model.width"] ** 0.8

    found = power_laws(sweep_of(points, law, rng, scatter=0.1), ["model.activation"])
    assert [one.name["model.activation"] for one in found] == ["relu", "tanh"]
    for one in found:
        assert one.low < 0.8 < one.high
        assert one.high - one.low < 0.5
        low, middle, high = one.parameters_for(20.0 * 8**0.8)
        assert low < 800 < high
        assert middle == pytest.approx(800, rel=0.15)
    capped = sweep_of(points, law, rng, scatter=0.1, limit=110)
    (both,) = power_laws(capped, [])
    assert both.bounds > 0
    assert both.low < 0.8 < (both.high or np.inf)
    (none,) = power_laws(sweep_of(points, lambda _: 9999.0, rng, scatter=0, limit=50), [])
    assert (none.low, none.high, none.slope_text) == (None, None, "not known")


@pytest.mark.sweeps
def test_the_command(measured_labels: Path, cli: Cli) -> None:
    rows = json.loads(cli("compare", measured_labels, "--by", "seed", "--json").stdout)
    assert [(row["value"], row["baseline"]) for row in rows] == [("1", "0")]
    assert rows[0]["pairs"] == 2
    assert 0 < rows[0]["ratio_lo"] < rows[0]["ratio"] < rows[0]["ratio_hi"]
    table = cli("compare", measured_labels).stdout
    assert "model.width" in table
    assert "verdict" in table
    said = cli("compare", measured_labels, "--by", "nosuch", check=2).stderr
    assert "no point has this key" in said
    slopes = cli("compare", measured_labels, "--slopes", "--by", "seed").stdout
    assert "three sizes" in slopes


@pytest.fixture(scope="module")
def measured_labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two widths and two seeds, which compares widths by its spec."""
    folder = tmp_path_factory.mktemp("compared")
    (folder / "c.yaml").write_text(
        "name: c\nfixed:\n  data: {source: digits, labels: random, n_max: 200}\n"
        "  model: {family: mlp, depth: 1}\n  training: {optimizer: adam, lr: 1e-2, epochs: 60}\n"
        "  search: {policy: bayes, start: 16}\n"
        "compare: {by: model.width, baseline: 8}\ngrid:\n  model.width: [4, 8]\n  seed: [0, 1]\n"
    )
    (folder / "p.yaml").write_text("workers: 2\ntracking_uri: none\n")
    succeeded(folder, "sweep", "c.yaml", "--profile", "p.yaml")
    page = (folder / "runs" / "c" / "report" / "index.html").read_text()
    assert "<h2>Comparisons</h2>" in page
    assert (folder / "runs" / "c" / "report" / "ratios.pdf").stat().st_size > 1000
    return folder / "runs" / "c"


@pytest.mark.sweeps
def test_sizes_are_those_at_hand_and_seeds_any(tmp_path: Path) -> None:
    """Ratios that differ between sizes: the interval is that of their mean, and it is said."""
    rng = np.random.default_rng(11)
    points = planted_points(tmp_path, 4)
    held = wrong = 0
    times = 100 if FULL else 8
    for _ in range(times):
        of_size = {width: math.exp(rng.normal(0, 0.3)) for width in (4, 8, 16)}

        def truth_of(point: Point, of_size: dict[int, float] = of_size) -> float:
            width = point.swept["model.width"]
            tanh = point.swept["model.activation"] == "tanh"
            return 25.0 * width * (of_size[width] if tanh else 1.0)

        (found,) = effects(sweep_of(points, truth_of, rng, scatter=0.05), BY)
        mean = math.exp(np.mean([math.log(one) for one in of_size.values()]))
        held += found.low <= mean <= found.high
        wrong += (found.verdict == "larger" and mean < 1) or (
            found.verdict == "smaller" and mean > 1
        )
        assert found.least < found.ratio < found.most
        assert found.least == pytest.approx(min(of_size.values()), rel=0.3)
    assert held >= (0.85 if FULL else 0.6) * times
    assert wrong <= max(1, WRONG * times)


def test_runs_are_paired_within_themselves_whatever_their_order(tmp_path: Path) -> None:
    """Two runs of other rates: EMCs of one are no counterparts of the other's."""
    rng = np.random.default_rng(4)
    points = planted_points(tmp_path, 1)
    low = [with_run_name(s, "low") for s in sweep_of(points, truth(1.0), rng, scatter=0)]
    high = [with_run_name(s, "high") for s in sweep_of(points, truth(1.0, 75.0), rng, scatter=0)]
    (found,) = effects([*low, *high], BY)
    (again,) = effects([*high, *low], BY)
    assert (found.pairs, found.unpaired) == (again.pairs, again.unpaired) == (6, 0)
    assert found.low < 1 < found.high
    assert again.ratio == pytest.approx(found.ratio, rel=0.02)
    (by_run,) = effects([*low, *high], Compare(by="run"))
    assert (by_run.value, by_run.pairs, by_run.verdict) == ("high", 6, "larger")
    assert by_run.low < 3 < by_run.high


def test_what_is_not_measured_yet_pairs_with_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    some = sweep_of(planted_points(tmp_path, 1), truth(1.0), rng, scatter=0)
    waiting = [PointStatus(point=one.point, state="waiting") for one in some]
    begun = [some[0], *waiting[1:5], some[5]]  # relu of width 4, tanh of width 16
    (found,) = effects(begun, BY)
    assert (found.pairs, found.unpaired, found.verdict_text) == (0, 1, "no pairs")
    assert effects([*waiting[:3], *some[3:]], BY) == [], "nothing of the baseline"
    assert effects(waiting, BY) == []
    asked = "name: x\ncompare:\n- {by: model.activation}\ngrid: {}\n"
    assert [one.verdict_text for one in comparisons(begun, [asked])] == ["no pairs"]
    assert comparisons(begun, ["name: x\n"]) == [], "no default comparison without pairs"


def test_growth_and_mappings_are_compared(tmp_path: Path) -> None:
    points = points_of(
        tmp_path,
        "fixed:\n  data: {source: digits, labels: random}\n"
        "  model: {family: mlp, depth: 1, width: 4}\n"
        "  search: {policy: growth, start: 16, growth: 2}\ngrid:\n  training:\n"
        "    - {optimizer: sgd, steps: 200, lr: 0.1}\n"
        "    - {optimizer: sgd, steps: 200, lr: 0.1, weight_decay: 0.01}\n",
    )
    some = [status(p, [(16, 0), (32, 0), (64, 3 + i)], params=100) for i, p in enumerate(points)]
    asked = Compare(by="training", baseline={"optimizer": "sgd", "steps": 200, "lr": 0.1})
    for given in (asked, Compare(by="training"), Compare(by="training", baseline="sgd")):
        (found,) = effects(some, given)
        assert (found.value, found.baseline, found.pairs) == ("weight_decay=0.01", "sgd", 1)
    with pytest.raises(InputError, match=r"training\.ratee: no point has this key"):
        effects(some, Compare(by="training", within=["training.ratee"]))
    with pytest.raises(InputError, match="cannot be both compared and in within"):
        effects(some, Compare(by="training", within=["training"]))


def test_a_ratio_of_thousands_is_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    points = planted_points(tmp_path, 1)[::3]
    small, large = (measured(p, emc, rng) for p, emc in zip(points, (3.0, 30_000.0), strict=True))
    (found,) = effects([small, large], BY)
    assert (found.verdict, found.pairs) == ("larger", 1)
    assert found.low < 10_000 < found.high
