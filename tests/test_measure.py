"""What is measured beside the EMC, from spec to results, by the real command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from flexhpc.errors import Interrupted
from flexhpc.evaluate import calibration_error
from flexhpc.measure import measure
from flexhpc.probe import Watch
from flexhpc.spec import checked
from flexhpc.store import RunFolder, read
from flexhpc.training import Group
from tests.conftest import Cli
from tests.tracking.test_sync import logged

SPEC = """\
name: also
fixed:
  data: {source: digits, test_fraction: 0.2}
  model: {family: mlp, width: 16, depth: 1}
  training: {optimizer: adam, lr: 1e-2, batch_size: 64, epochs: 60, gates: {curvature: report}}
  search: {policy: bisection, start: 32, tolerance: 0.5, eps: [0.2]}
grid:
  data.labels: [original, random]
"""
CPU = Group(torch.device("cpu"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_everything_that_can_be_asked_for_is_in_the_results(cli: Cli, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(SPEC)
    plain = cli("sweep", spec).stdout
    before = json.loads(cli("results", "runs/also", "--format", "json").stdout)
    assert all("test_accuracy" not in row for row in before)
    cli("sweep", spec, "--set", "evaluate.full=true")
    original, random = json.loads(cli("results", "runs/also", "--format", "json").stdout)
    assert "report" in plain
    assert original["status"] == random["status"] == "done"
    assert original["probes"] == before[0]["probes"]
    assert 0.7 < original["test_accuracy"] < 1
    assert original["gap"] == pytest.approx(original["train_accuracy"] - original["test_accuracy"])
    assert 0 <= original["calibration_error"] < 0.3
    assert "test_accuracy" not in random
    assert random["emc_eps_0.2"] >= random["emc"]
    assert random["emc_eps_0.2_lo"] <= random["emc_eps_0.2"] <= random["emc_eps_0.2_hi"]
    assert random["bits"] == 32 * random["params"]
    assert random["emc_per_bit"] == pytest.approx(random["emc"] / random["bits"])
    assert 0 < random["bits_per_param"] < 5
    assert original["bits_per_param"] is None
    assert random["touched_plateau"] == random["unconverged"]
    assert random["touched_curvature"] >= 0
    measured = {"params", "emc", "test_accuracy", "gap", "emc_eps_0.2", "emc_per_bit"}
    (metrics,) = [
        parent.data.metrics
        for parent in logged(f"sqlite:///{tmp_path}/runs/also/mlflow.db", "also")[0]
        if parent.data.params["data.labels"] == "original"
    ]
    for key in measured:
        assert metrics[key] == pytest.approx(original[key])
    cli("report", "runs/also")
    page = (tmp_path / "runs" / "also" / "report" / "index.html").read_text()
    for key in ("test_accuracy", "emc_eps_0.2", "bits_per_param"):
        assert key in page


def test_an_evaluation_without_a_test_set_is_refused(cli: Cli, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(SPEC.replace(", test_fraction: 0.2", "") + "evaluate: {full: true}\n")
    said = cli("validate", spec, check=2).stderr
    assert "spec.yaml:9: evaluate.full: digits has no test set of its own" in said
    spec.write_text(SPEC + "evaluate: {fulll: true}\n")
    assert "did you mean full?" in cli("validate", spec, check=2).stderr


def test_an_interrupted_evaluation_goes_on_bitwise(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC + "evaluate: {full: true}\n")
    point = checked(path)[1][0]
    point = replace(point, search=point.search.model_copy(update={"eps": None}))
    whole, parted = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parted")
    estimate = measure(point, whole, CPU, Watch())
    steps = sum(probe.steps for probe in read(whole.point(point.id)).probes)
    count = 0

    def stopping() -> bool:
        nonlocal count
        count += 1
        return count == steps + 100

    with pytest.raises(Interrupted):
        measure(point, parted, CPU, Watch(stopping=stopping))
    record = read(parted.point(point.id))
    assert record.estimate is not None
    assert record.evaluation is None
    assert not record.done(evaluate=True)
    assert parted.checkpoints(point.id)
    assert measure(point, parted, CPU, Watch()) == estimate
    assert not parted.checkpoints(point.id)
    first, second = (read(run.point(point.id)).evaluation for run in (whole, parted))
    assert {**first, "seconds": 0} == {**second, "seconds": 0}
    assert first["n"] == 1_438
    assert first["n_test"] == 359


def test_calibration_error_by_hand() -> None:
    """Two bins: 0.9 said and half right, 0.6 said and all right."""
    chances = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]], dtype=torch.float64)
    labels = torch.tensor([0, 1, 1, 1])
    assert calibration_error(chances, labels) == pytest.approx((0.4 + 0.4) / 2)
    certain = torch.eye(2, dtype=torch.float64)
    assert calibration_error(certain, torch.tensor([0, 1])) == 0


def test_a_training_that_diverges_is_evaluated_all_the_same(cli: Cli, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        "name: wild\nevaluate: {full: true}\nfixed:\n"
        "  data: {source: digits, test_fraction: 0.2, n_max: 50}\n"
        "  model: {family: mlp, width: 8, depth: 4}\n"
        "  training: {optimizer: sgd, lr: 1e5, epochs: 5, gates: {plateau: off}}\n"
        "  search: {policy: bisection, start: 4, tolerance: 1}\n"
    )
    cli("sweep", spec)
    text = cli("results", "runs/wild", "--format", "json").stdout
    (row,) = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert row["status"] == "done"
    assert row["calibration_error"] is None
    assert 0 <= row["test_accuracy"] < 0.5
    record = read(RunFolder(tmp_path / "runs" / "wild").point(row["point_id"]))
    assert record.evaluation["n"] == 1_438, "n_max caps the search, not the full training set"


def test_batchnorm_that_fits_nothing_is_left_censored(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(
        "name: normed\nfixed:\n  data: {source: digits, labels: random}\n"
        "  model: {family: mlp, width: 2, depth: 1, norm: batch}\n"
        "  training: {optimizer: sgd, lr: 1e-4, epochs: 1, gates: {plateau: off}}\n"
        "  search: {policy: bisection, start: 16}\n"
    )
    (point,) = checked(path)[1]
    estimate = measure(point, RunFolder(tmp_path / "run"), CPU, Watch())
    assert (estimate.emc, estimate.censored, estimate.smallest_fail) == (0, "left", 2)


def test_finished_points_say_where_a_new_one_begins(tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        "name: near\n"
        "fixed:\n"
        "  data: {source: gaussian, dims: 8, classes: 2, size: 500, labels: random}\n"
        "  model: {family: mlp, depth: 1}\n"
        "  training: {optimizer: adam, lr: 3e-2, batch_size: 500, epochs: 150}\n"
        "  search: {policy: bayes, start: 4, max_probes: 12, neighbours: true}\n"
        "grid: {model.width: [2, 4], seed: [0, 1]}\n"
    )
    points = checked(spec)[1]
    run = RunFolder(tmp_path / "near")
    estimates = [measure(point, run, CPU, Watch()) for point in points]
    records = [read(run.point(point.id)) for point in points]
    assert records[0].header.belief == ""
    assert records[0].probes[0].n == 4
    for before, record in enumerate(records[1:], start=1):
        belief = json.loads(record.header.belief)
        assert set(belief["points"]) <= {p.id for p in points[:before]}
        assert record.probes[0].n == pytest.approx(2.718281828 ** belief["centre"], abs=1)
    fields = ("width", "lapse", "emc", "emc_lo", "emc_hi")
    for estimate, record in zip(estimates, records, strict=True):
        assert all(record.estimate[key] == getattr(estimate, key) for key in fields)
        assert len(record.probes) <= 12
    again = [measure(point, run, CPU, Watch()) for point in points]
    assert again == estimates
    alone = RunFolder(tmp_path / "alone")
    plain = replace(points[3], search=points[3].search.model_copy(update={"neighbours": False}))
    measure(plain, alone, CPU, Watch())
    assert read(alone.point(plain.id)).header.belief == ""
