"""Giving probes up: the forecast, the limit that a point's own fits set, and real trainings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flexhpc.data import load_samples
from flexhpc.errors import Interrupted
from flexhpc.probe import Watch, run_probe
from flexhpc.search import ProbeResult, advance
from flexhpc.search.hopeless import (
    AT_FIRST,
    ENOUGH,
    FIRST,
    LOOKS,
    applies,
    foretold,
    hopeless,
    limit,
    looks_of,
)
from flexhpc.spec import checked
from flexhpc.spec.sections import Adam, Bayes, Bisection, Gates, PlateauGate
from flexhpc.training import Group

SPEC = """\
name: hard
fixed:
  data: {source: digits, labels: random}
  model: {family: mlp, width: 6, depth: 1}
  training: {optimizer: adam, lr: 1e-2, batch_size: 64, epochs: 128}
  search: {policy: bayes, start: 16}
"""
CPU = Group(torch.device("cpu"))


def fit(n: int, least: float | None) -> ProbeResult:
    return ProbeResult(n=n, repeat=0, verdict="fit", n_errors=0, cost=n, least_chance=least)


@given(st.lists(st.integers(0, 500), max_size=LOOKS), st.integers(500, 10**6))
def test_a_forecast_is_a_chance_at_every_look(missed: list[int], n: int) -> None:
    chance = foretold(np.array(missed, dtype=float), n)
    assert len(chance) == max(0, min(len(missed), LOOKS - 1) - FIRST)
    assert ((chance >= 0) & (chance <= 1)).all()


def test_a_stuck_training_has_less_of_a_chance_than_one_that_gets_on() -> None:
    at = np.arange(1, 33)
    for n in (100, 10_000, 1_000_000):
        falling = foretold(np.round(0.8 * n * np.exp(-at / 3)), n)
        stuck = foretold(np.full(32, round(0.5 * n)), n)
        assert falling[-1] > 0.3
        assert stuck[-1] < 0.02


def test_a_points_own_fits_set_the_limit() -> None:
    few = [fit(100, 0.2)] * (ENOUGH - 1)
    assert limit([]) == limit(few) == AT_FIRST
    low = limit([fit(100, 1e-4)] * ENOUGH)
    high = limit([fit(100, 0.3)] * ENOUGH)
    assert low < 1e-4
    assert AT_FIRST < high < 0.3
    assert limit([fit(100, 1e-4)] * 80) == pytest.approx(1e-4)
    far = [fit(10, 1e-9), *[fit(100, 0.3)] * ENOUGH]
    assert limit(far) == high, "a fit far below says nothing"
    assert limit([fit(100, None)] * 9) == AT_FIRST


def test_where_probes_must_go_on_to_their_end_none_is_given_up() -> None:
    adam, bayes = Adam(optimizer="adam"), Bayes(policy="bayes")
    assert applies(bayes, adam)
    for search in (
        Bisection(policy="bisection"),
        bayes.model_copy(update={"give_up": False}),
        bayes.model_copy(update={"eps": [0.1]}),
    ):
        assert not applies(search, adam)
    for change in (
        {"until": "convergence", "epochs": None},
        {"unconverged": "extend"},
        {"gates": Gates(plateau=PlateauGate(mode="reject"))},
        {"learning_rate": [0.1, 0.01]},
    ):
        assert not applies(bayes, adam.model_copy(update=change))
    assert advance(bayes.model_copy(update={"give_up": False}), 99, []).hopeless_below == 0


def test_looks_are_spread_over_any_budget() -> None:
    errors = list(range(200, 0, -1))
    assert len(looks_of(errors, 200)) == LOOKS - 1
    assert looks_of(errors[:100], 200)[-1] == errors[99]
    assert len(looks_of(errors[:63], 63)) == 0, "an epoch must not count as several looks"
    assert not hopeless([50] * 3, 50, 100, 0.9), "too early to say"
    assert hopeless([50] * 50, 50, 100, 0.9)


@pytest.fixture(scope="module")
def point(tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("hopeless") / "spec.yaml"
    path.write_text(SPEC)
    return checked(path)[1][0]


def test_a_hopeless_training_is_given_up_and_resumes_bitwise(point, tmp_path) -> None:
    samples = load_samples(point.data, point.seed)
    whole = run_probe(point, samples, 400, 0, None, CPU, Watch())
    assert whole.verdict == "unconverged"
    assert "least_chance" not in whole.readings
    given_up = run_probe(point, samples, 400, 0, None, CPU, Watch(), 0.02)
    assert given_up.verdict == "hopeless"
    assert given_up.cost < 0.5 * whole.cost
    assert not given_up.rejected
    assert given_up.readings["least_chance"] < 0.02
    assert given_up.n_errors == given_up.error_curve[-1] == (~given_up.fitted).sum()
    np.testing.assert_array_equal(
        given_up.error_curve, whole.error_curve[: len(given_up.error_curve)]
    )
    checkpoint = tmp_path / "probe.ckpt"
    asked = iter(range(10**9))
    stop = Watch(stopping=lambda: next(asked) > given_up.steps // 2)
    with pytest.raises(Interrupted):
        run_probe(point, samples, 400, 0, checkpoint, CPU, stop, 0.02)
    resumed = run_probe(point, samples, 400, 0, checkpoint, CPU, Watch(), 0.02)
    assert (resumed.verdict, resumed.cost) == ("hopeless", given_up.cost)
    np.testing.assert_array_equal(resumed.loss_curve, given_up.loss_curve)


def test_trainings_that_fit_are_not_given_up(point) -> None:
    samples = load_samples(point.data, point.seed)
    fits = 0
    for repeat in range(8):
        whole = run_probe(point, samples, 16, repeat, None, CPU, Watch())
        short = run_probe(point, samples, 16, repeat, None, CPU, Watch(), AT_FIRST)
        assert short.cost <= whole.cost
        if whole.verdict == "fit":
            fits += 1
            assert (short.verdict, short.epochs) == ("fit", whole.epochs)
            assert short.readings["least_chance"] > AT_FIRST
    assert fits >= 2
