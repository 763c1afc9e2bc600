"""The replay benchmark of docs/search.md."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from bench.search.__main__ import Bisections, at_cost, measure
from bench.search.plot import plot
from bench.search.replay import replay_search, replay_single_runs
from bench.search.report import markdown
from bench.search.worlds import MODELS, RecordedWorld, logistic, perceptron, true_emc
from flexhpc.config.sections.search import Bayes

SEARCH = Bayes(policy="bayes", max_cost=30.0)


@pytest.mark.parametrize("name", MODELS)
def test_drawn_training_runs_follow_the_fit_curve(name: str) -> None:
    world, rng = RecordedWorld(name), np.random.default_rng(0)
    emc = true_emc(world)
    assert world.fit_probability(emc) == pytest.approx(0.5, abs=0.01)
    curve = [world.fit_probability(n) for n in np.geomspace(emc / 20, emc * 8, 60)]
    assert (np.diff(curve) <= 1e-12).all()
    for n in (round(emc / 1.3), round(emc * 1.2)):
        runs = [world.draw(n, rng) for _ in range(400)]
        fit_rate = np.mean([run.verdict == "fit" for run in runs])
        assert fit_rate == pytest.approx(world.fit_probability(n), abs=0.08)
        for run in runs:
            assert 0 < run.share <= 1.01
            assert run.cost == pytest.approx(run.share * run.full_cost, rel=0.05, abs=1)


def test_true_emc_of_exact_curves() -> None:
    for dims in (5, 20, 200):
        assert true_emc(perceptron(dims, 0.0)) == pytest.approx(2 * dims, rel=1e-3)
    assert true_emc(logistic(1000, 0.2, 0.0)) == pytest.approx(1000, rel=1e-3)
    assert true_emc(logistic(1000, 0.2, 0.05)) < 990


def test_replays_end_near_the_true_emc_and_are_compared_at_equal_cost() -> None:
    world = RecordedWorld("perceptron_adam")
    replays = [replay_search(world, SEARCH, np.random.default_rng(seed)) for seed in range(6)]
    assert np.mean([abs(replay.error[-1]) for replay in replays]) < 0.12
    assert all((np.diff(replay.cost) > 0).all() for replay in replays)
    for budget in (3.0, 6.0):
        assert at_cost(replays, budget)["cost"] == pytest.approx(budget, rel=0.05)
    bisection, growth = (
        np.mean(
            [replay_single_runs(world, np.random.default_rng(seed), g)[0] for seed in range(40)]
        )
        for g in (None, 1.02)
    )
    assert growth < bisection < 0.1


def test_error_and_cost_of_repeated_bisections() -> None:
    errors = np.random.default_rng(0).normal(0, 0.1, 400)
    bisections = Bisections(np.column_stack((errors, np.full(400, 5.0))))
    assert bisections.rmse(1) == pytest.approx(0.1, rel=0.1)
    assert bisections.rmse(9) < 0.5 * bisections.rmse(1)
    assert bisections.cost(bisections.rmse(3)) == pytest.approx(15)


def test_tables_and_plot_of_several_worlds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.search.__main__.BISECTIONS", 30)
    monkeypatch.setattr("bench.search.__main__.GROWTH_FACTORS", (1.25,))
    names = ["perceptron_adam", "logistic, width 0.2, lapses 5%"]
    with ProcessPoolExecutor(2) as pool:
        results = {name: measure(name, 2, pool) for name in names}
    text = markdown(results)
    assert all(f"| {name}" in text for name in names)
    assert "nan" not in text
    for variant in results["perceptron_adam"]["variants"].values():
        assert variant["budgets"]["4"]["rmse"] < 1
        assert 0 < variant["tolerance"]["time"] <= variant["tolerance"]["cost"] + 1e-9
    plot(results, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000
