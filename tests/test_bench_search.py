"""The replay benchmark of docs/search.md."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from bench.search.__main__ import Bisections, at_cost, measure
from bench.search.plot import plot
from bench.search.replay import play, walk
from bench.search.report import markdown
from bench.search.tables import MODELS, Table, logistic, middle, perceptron
from flexhpc.config.sections.search import Bayes

SEARCH = Bayes(policy="bayes", max_cost=30.0)


@pytest.mark.parametrize("name", MODELS)
def test_drawn_training_runs_follow_the_fit_curve(name: str) -> None:
    table, rng = Table(name), np.random.default_rng(0)
    truth = middle(table)
    assert table.chance(truth) == pytest.approx(0.5, abs=0.01)
    curve = [table.chance(n) for n in np.geomspace(truth / 20, truth * 8, 60)]
    assert (np.diff(curve) <= 1e-12).all()
    for n in (round(truth / 1.3), round(truth * 1.2)):
        drawn = [table.draw(n, rng) for _ in range(400)]
        rate = np.mean([t.verdict == "fit" for t in drawn])
        assert rate == pytest.approx(table.chance(n), abs=0.08)
        for t in drawn:
            assert (t.n_errors == 0) == (t.verdict == "fit")
            assert 0 < t.share <= 1.01
            assert t.cost == pytest.approx(t.share * t.full_cost, rel=0.05, abs=1)


def test_middle_of_exact_curves() -> None:
    for dims in (5, 20, 200):
        assert middle(perceptron(dims, 0.0)) == pytest.approx(2 * dims, rel=1e-3)
    assert middle(logistic(1000, 0.2, 0.0)) == pytest.approx(1000, rel=1e-3)
    assert middle(logistic(1000, 0.2, 0.05)) < 990


def test_replays_end_near_the_truth_and_are_compared_at_equal_cost() -> None:
    table = Table("perceptron_adam")
    plays = [play(table, SEARCH, np.random.default_rng(seed)) for seed in range(6)]
    assert np.mean([abs(p.error[-1]) for p in plays]) < 0.12
    assert all((np.diff(p.cost) > 0).all() for p in plays)
    for budget in (3.0, 6.0):
        assert at_cost(plays, budget)["cost"] == pytest.approx(budget, rel=0.05)
    errors = [walk(table, np.random.default_rng(seed), None)[0] for seed in range(40)]
    grown = [walk(table, np.random.default_rng(seed), 1.02)[0] for seed in range(40)]
    assert np.mean(grown) < np.mean(errors) < 0.1


def test_error_and_cost_of_repeated_bisections() -> None:
    errors = np.random.default_rng(0).normal(0, 0.1, 400)
    plain = Bisections(np.column_stack((errors, np.full(400, 5.0))))
    assert plain.rmse(1) == pytest.approx(0.1, rel=0.1)
    assert plain.rmse(9) < 0.5 * plain.rmse(1)
    assert plain.cost(plain.rmse(3)) == pytest.approx(15)


def test_tables_and_plot_of_several_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.search.__main__.BISECTIONS", 30)
    monkeypatch.setattr("bench.search.__main__.GROWTH", (1.25,))
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
