"""A point with a tuned key: one process or several, concurrent probes, interruptions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flexhpc.config import Point
from flexhpc.errors import Interrupted
from flexhpc.measuring.point import measure
from flexhpc.store import RunFolder
from flexhpc.training import Callbacks
from tests.conftest import Cli
from tests.measuring.helpers import CPU, load_point, measure_and_count, pool_of, stop_after
from tests.point_files import results_of_point
from tests.tracking.test_sync import logged

SPEC = """\
name: tuned
evaluate: {n: 100, steps: 100}
fixed:
  data: {source: digits, labels: original, test_fraction: 0.2, n_max: 400}
  model: {family: linear}
  training: {optimizer: adam, lr: {tune: [1e-4, 1e-2]}, batch_size: 32, steps: 200}
  search: {policy: bayes, start: 16, at_once: 3, tolerance: 0.5, max_cost: 10}
"""


@pytest.fixture(scope="module")
def point(tmp_path_factory: pytest.TempPathFactory) -> Point:
    return load_point(tmp_path_factory.mktemp("tuned"), SPEC)


@pytest.fixture(scope="module")
def undisturbed(
    point: Point, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], int]:
    """Contents of the point measured in one process, and the number of updates."""
    run = RunFolder(tmp_path_factory.mktemp("undisturbed"))
    updates = measure_and_count(point, run)
    return results_of_point(point, run), updates


@pytest.fixture(scope="module")
def expected(undisturbed: tuple[dict[str, Any], int]) -> dict[str, Any]:
    return undisturbed[0]


@pytest.mark.full_budget
def test_best_learning_rate_is_found_and_evaluated(expected: dict[str, Any]) -> None:
    """At a rate of 1e-4, 200 updates hardly change a linear model."""
    keys = [probe[:3] for probe in expected["probes"]]
    assert {arm for arm, _, _ in keys} == {0, 1, 2, 3, 4}
    assert expected["estimate"].arm >= 3
    assert expected["evaluation"]["verdict"] == "fit"
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("fraction", [0.06, 0.99], ids=["in a probe", "in the evaluation"])
def test_interrupted_point_is_resumed_bitwise(
    fraction: float, point: Point, undisturbed: tuple[dict[str, Any], int], tmp_path: Path
) -> None:
    run, (expected, updates) = RunFolder(tmp_path), undisturbed
    with pytest.raises(Interrupted):
        measure(point, run, CPU, stop_after(round(fraction * updates)))
    assert run.checkpoints(point.id)
    measure(point, run, CPU, Callbacks())
    assert results_of_point(point, run) == expected
    assert not run.checkpoints(point.id)


def test_pool_equals_one_process(point: Point, expected: dict[str, Any], tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with pool_of(3) as pool:
        measure(point, run, CPU, Callbacks(), pool)
    assert results_of_point(point, run) == expected
    assert not run.checkpoints(point.id)


def test_two_processes_equal_one_process(
    point: Point, expected: dict[str, Any], cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "tuned.yaml").write_text(SPEC)
    (tmp_path / "profile.yaml").write_text("processes_per_node: 2\n")
    cli("sweep", "tuned.yaml", "--profile", "profile.yaml")
    measured = results_of_point(point, RunFolder(tmp_path / "runs" / "tuned"))
    assert measured["probes"] == expected["probes"]
    (row,) = json.loads(cli("results", "runs/tuned", "--format", "json").stdout)
    arm = point.arms[expected["estimate"].arm]
    assert row["best.training.lr"] == arm.values["training.lr"]
    assert row["at_edge"] is bool(arm.edges)
    assert 0 < row["best_chance"] <= 1
    assert row["emc"] == expected["estimate"].emc
    output = f"lr={arm.values['training.lr']:g}{' (edge)' if arm.edges else ''}"
    output = f"{output}, {row['best_chance']:.0%}"
    assert output in cli("results", "runs/tuned").stdout
    assert output in (tmp_path / "runs/tuned/report/index.html").read_text()
    (parent,) = logged(f"sqlite:///{tmp_path}/runs/tuned/mlflow.db", "tuned")[0]
    assert parent.data.metrics["best_chance"] == pytest.approx(row["best_chance"])
    assert parent.data.metrics["best.training.lr"] == row["best.training.lr"]
    assert f"best at {output}, ended by: " in parent.data.tags["mlflow.note.content"]
    assert parent.data.tags["ended_by"] == row["ended_by"]
