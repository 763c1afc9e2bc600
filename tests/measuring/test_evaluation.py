"""Evaluations of generalization and other results in addition to the EMC, from spec to report."""

from __future__ import annotations

import csv
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch

import flexhpc.measuring.evaluation
from flexhpc.config import Point
from flexhpc.config.sections.evaluate import Evaluate
from flexhpc.config.sections.training import Adam, Gd, Sgd
from flexhpc.data import draw_subset, load_samples
from flexhpc.errors import Interrupted, PointError
from flexhpc.measuring.evaluation import calibration_error, evaluate, evaluation_training
from flexhpc.measuring.point import measure
from flexhpc.measuring.probe import run_training
from flexhpc.seeds import ProbeSeeds
from flexhpc.store import RunFolder, read_point_file
from flexhpc.store.status import is_done
from flexhpc.training import Callbacks
from tests.conftest import Cli
from tests.measuring.helpers import CPU, load_point, stop_after
from tests.tracking.test_sync import logged

SPEC = """\
name: evaluated
fixed:
  data: {source: digits, test_fraction: 0.2}
  model: {family: mlp, width: 16, depth: 1}
  training: {optimizer: adam, lr: 1e-2, batch_size: 64, epochs: 60, gates: {curvature: report}}
  search: {policy: bisection, start: 32, tolerance: 0.5, eps: [0.2]}
grid:
  data.labels: [original, random]
"""


def test_requested_quantities_are_in_results_report_and_mlflow(cli: Cli, tmp_path: Path) -> None:
    """An evaluation can be requested or changed later without repeating probes."""
    spec = tmp_path / "spec.yaml"
    spec.write_text(SPEC)
    run = tmp_path / "runs" / "evaluated"

    def results(*changes: str) -> list[dict[str, Any]]:
        cli("sweep", spec, *(word for change in changes for word in ("--set", change)))
        return json.loads(cli("results", run, "--format", "json").stdout)

    before = results()
    assert all("test_accuracy" not in row for row in before)
    original, random = results("evaluate.n=300", "evaluate.steps=2000")
    assert original["status"] == random["status"] == "done"
    assert 0.5 < original["test_accuracy"] < 1
    assert original["interpolated"] is True
    assert original["gap"] == pytest.approx(original["train_accuracy"] - original["test_accuracy"])
    assert 0 <= original["calibration_error"] < 0.5
    assert not {"test_accuracy", "interpolated"} & set(random)
    assert random["emc_eps_0.2"] >= random["emc"]
    assert random["emc_eps_0.2_lo"] <= random["emc_eps_0.2"] <= random["emc_eps_0.2_hi"]
    assert random["bits"] == 32 * random["params"]
    assert random["emc_per_bit"] == pytest.approx(random["emc"] / random["bits"])
    assert 0 < random["bits_per_param"] < 5
    assert original["bits_per_param"] is None
    assert random["touched_plateau"] == random["unconverged"]
    assert random["touched_curvature"] >= 0
    page = (run / "report" / "index.html").read_text()
    for text in (
        "test_accuracy", "emc_eps_0.2", "bits_per_param",
        "1 of 1 training runs for evaluation interpolated",
    ):  # fmt: skip
        assert text in page

    short, _ = results("evaluate.n=300", "evaluate.steps=10")
    assert short["interpolated"] is False
    assert short["test_accuracy"] < original["test_accuracy"]
    for key in ("point_id", "emc", "emc_lo", "emc_hi", "probes", "cost", "status"):
        assert short[key] == original[key] == before[0][key]
    text = cli("results", run, "--format", "csv").stdout
    cells = [line["interpolated"] for line in csv.DictReader(io.StringIO(text))]
    assert cells == ["false", ""]
    cli("results", run, "--format", "parquet", "-o", tmp_path / "r.parquet")
    frame = pandas.read_parquet(tmp_path / "r.parquet")
    assert frame["interpolated"].tolist() == [False, None]
    (metrics,) = [
        parent.data.metrics
        for parent in logged(f"sqlite:///{run}/mlflow.db", "evaluated")[0]
        if parent.data.params["data.labels"] == "original"
    ]
    for key in (
        "params", "emc", "test_accuracy", "gap", "emc_eps_0.2", "emc_per_bit", "interpolated",
    ):  # fmt: skip
        assert metrics[key] == pytest.approx(float(short[key]))
    page = (run / "report" / "index.html").read_text()
    for text in (
        "0 of 1 training runs for evaluation interpolated",
        "1 did not (1 unconverged)",
        "no correlation is given", "<th>interpolated</th>",
    ):  # fmt: skip
        assert text in page


def test_evaluation_without_a_test_set_is_rejected(cli: Cli, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(SPEC.replace(", test_fraction: 0.2", "") + "evaluate: {full: true}\n")
    output = cli("validate", spec, check=2).stderr
    assert "spec.yaml:9: evaluate.full: digits has no test set" in output
    spec.write_text(SPEC + "evaluate: {fulll: true}\n")
    assert "did you mean full?" in cli("validate", spec, check=2).stderr


SHORT = SPEC.replace(", gates: {curvature: report}", "").replace(", eps: [0.2]", "")


def evaluated_point(folder: Path, evaluate: str, text: str = SHORT) -> Point:
    """Return the point with original labels."""
    return load_point(folder, f"{text}evaluate: {{{evaluate}}}\n")


@pytest.mark.full_budget
def test_evaluation_has_a_separate_size_and_budget(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    long = evaluated_point(tmp_path, "n: 300, steps: 2000")
    short = evaluated_point(tmp_path, "n: 300, epochs: 2")
    estimate = measure(long, run, CPU, Callbacks())
    before = read_point_file(run.point_file(long.id))
    evaluation = before.evaluation
    assert evaluation["asked"] == {"n": 300, "steps": 2000}
    assert [evaluation[key] for key in ("n", "verdict", "interpolated")] == [300, "fit", True]
    assert evaluation["gap"] == 1 - evaluation["test_accuracy"]
    assert evaluation["epochs"] > 2
    assert short.id == long.id
    assert not is_done(short, before), "a different budget is a different evaluation"
    assert measure(short, run, CPU, Callbacks()) == estimate
    after = read_point_file(run.point_file(long.id))
    assert [p.finished for p in after.probes] == [p.finished for p in before.probes]
    assert after.evaluation["asked"] == {"n": 300, "epochs": 2}
    assert (after.evaluation["epochs"], after.evaluation["interpolated"]) == (2, False)
    assert is_done(short, after)
    assert not is_done(long, after)
    assert not is_done(evaluated_point(tmp_path, "n: 299, epochs: 2"), after)
    assert is_done(replace(long, evaluate=None), after), "no evaluation is requested"


@pytest.mark.parametrize("nested", [False, True])
def test_evaluation_subsets_are_nested_and_independent_of_probes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nested: bool
) -> None:
    kind = "nested" if nested else "fresh"
    text = SHORT.replace("test_fraction: 0.2", f"test_fraction: 0.2, subset: {kind}")
    point = evaluated_point(tmp_path, "n: 64, epochs: 1", text)
    samples = load_samples(point.data, 0)
    subsets = []

    def recorded(*arguments: Any, **options: Any) -> Any:
        result = run_training(*arguments, **options)
        subsets.append(result[1])
        return result

    monkeypatch.setattr(flexhpc.measuring.evaluation, "run_training", recorded)
    for n, seed in ((64, 0), (100, 0), (100, 1)):
        changed = replace(point, seed=seed, evaluate=Evaluate(n=n, epochs=1))
        evaluate(changed, samples, 0, None, CPU, Callbacks())
    small, large, other_seed = map(set, subsets)
    assert [len(ids) for ids in (small, large, other_seed)] == [64, 100, 100]
    assert small < large, "a smaller subset is part of a larger one"
    assert len(large & other_seed) < 30, "about 7 are shared by chance"
    for repeat in range(3):
        seeds = ProbeSeeds.derive(0, 64, repeat, nested=nested)
        assert len(small & set(draw_subset(samples.pool, 64, seeds.subset))) < 30


@pytest.mark.full_budget
def test_interrupted_evaluation_is_resumed_bitwise(tmp_path: Path) -> None:
    """An evaluation of a different size or budget starts from scratch."""
    cosine = SHORT.replace("epochs: 60", "epochs: 60, schedule: cosine")
    point = evaluated_point(tmp_path, "n: 1000, steps: 400", cosine)
    undisturbed, stopped = RunFolder(tmp_path / "undisturbed"), RunFolder(tmp_path / "stopped")
    estimate = measure(point, undisturbed, CPU, Callbacks())
    updates = sum(probe.steps for probe in read_point_file(undisturbed.point_file(point.id)).probes)
    with pytest.raises(Interrupted):
        measure(point, stopped, CPU, stop_after(updates + 100))
    record = read_point_file(stopped.point_file(point.id))
    assert (record.estimate, record.evaluation) == (estimate, None)
    assert not record.has_evaluation({})
    assert stopped.checkpoints(point.id)
    for keys in ("n: 1000, steps: 400", "n: 1000, steps: 500", "full: true"):
        copy, epochs = RunFolder(tmp_path / keys), []
        shutil.copytree(stopped.path, copy.path)
        resumed = evaluated_point(tmp_path, keys, cosine)
        callbacks = Callbacks(on_progress=lambda state, to=epochs: to.append(state["epoch"]))
        assert measure(resumed, copy, CPU, callbacks) == estimate
        evaluation = read_point_file(copy.point_file(point.id)).evaluation
        assert evaluation["asked"] == resumed.evaluation
        assert not copy.checkpoints(point.id)
        if resumed.evaluate == point.evaluate:
            assert epochs[0] == 100 // 16 + 1, "not resumed from the checkpoint"
            expected = read_point_file(undisturbed.point_file(point.id)).evaluation
            assert {**expected, "seconds": 0} == {**evaluation, "seconds": 0}
        else:
            assert epochs[0] == 1, f"{keys}: resumed from the checkpoint of {point.evaluation}"


@pytest.mark.parametrize(
    ("training", "budget"),
    [
        (Adam(optimizer="adam", epochs=3), {"steps": 50}),
        (Adam(optimizer="adam", steps=3, schedule="cosine", warmup=2), {"epochs": 50}),
        (Sgd(optimizer="sgd", gradient_evaluations=9), {"steps": 50}),
        (Gd(optimizer="gd", until="convergence"), {"epochs": 50}),
        (Adam(optimizer="adam", unconverged="extend", extend_to=3.0), {"steps": 50}),
    ],
)
def test_evaluation_budget_replaces_the_training_budget(training, budget) -> None:
    changed = evaluation_training(Evaluate(n=9, **budget), training)
    keys = ("steps", "epochs", "gradient_evaluations", "until")
    assert {k: getattr(changed, k) for k in keys if getattr(changed, k) is not None} == budget
    assert changed.unconverged == "report"
    for key in set(type(training).model_fields) - {*keys, "unconverged", "gates"}:
        assert getattr(changed, key) == getattr(training, key)
    assert changed.gates.plateau == training.gates.plateau
    assert (changed.gates.gradient.mode, changed.gates.curvature.mode) == ("off", "off")
    default = evaluation_training(Evaluate(full=True), training)
    assert default.model_copy(update={"gates": training.gates}) == training


def test_evaluation_on_too_many_samples_fails_before_the_search(tmp_path: Path) -> None:
    """With dropped conflicts, the number of samples is known only after loading the data."""
    text = SHORT.replace("test_fraction: 0.2", "test_fraction: 0.2, conflicts: drop")
    point = evaluated_point(tmp_path, "n: 1438", text)
    point = replace(point, evaluate=point.evaluate.model_copy(update={"n": 1439}))
    run = RunFolder(tmp_path / "run")
    with pytest.raises(PointError, match=r"evaluate.n: 1439 is more than the 1438 training"):
        measure(point, run, CPU, Callbacks())
    assert read_point_file(run.point_file(point.id)) is None


def test_calibration_error_of_two_bins() -> None:
    """Confidence 0.9 with accuracy 0.5, and confidence 0.6 with accuracy 1."""
    probabilities = torch.tensor(
        [[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]], dtype=torch.float64
    )
    labels = torch.tensor([0, 1, 1, 1])
    assert calibration_error(probabilities, labels) == pytest.approx((0.4 + 0.4) / 2)
    certain = torch.eye(2, dtype=torch.float64)
    assert calibration_error(certain, torch.tensor([0, 1])) == 0


def test_diverged_training_run_is_evaluated(cli: Cli, tmp_path: Path, profile: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        "name: diverged\nevaluate: {full: true}\nfixed:\n"
        "  data: {source: digits, test_fraction: 0.2, n_max: 50}\n"
        "  model: {family: mlp, width: 8, depth: 4}\n"
        "  training: {optimizer: sgd, lr: 1e5, epochs: 5, gates: {plateau: off}}\n"
        "  search: {policy: bisection, start: 4, tolerance: 1}\n"
    )
    cli("sweep", spec, "--profile", profile)
    text = cli("results", "runs/diverged", "--format", "json").stdout
    (row,) = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert row["status"] == "done"
    assert row["calibration_error"] is None
    assert 0 <= row["test_accuracy"] < 0.5
    record = read_point_file(RunFolder(tmp_path / "runs" / "diverged").point_file(row["point_id"]))
    assert record.evaluation["n"] == 1_438, "n_max caps the search, not the full training set"
