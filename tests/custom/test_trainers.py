"""Custom trainers: arguments, results, processes and errors."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest

import flexhpc
from flexhpc.config import freeze, load_points
from flexhpc.custom.code import find_code
from flexhpc.custom.trainer import Budget, Trainer, TrainerCall, parse_result, train
from flexhpc.errors import InputError, Interrupted, PointError
from flexhpc.measuring import trainer as runner
from flexhpc.seeds import ProbeSeeds
from flexhpc.training import Callbacks, Group
from tests.barrier import Barrier, wait_for
from tests.command import flexhpc_output
from tests.conftest import REPOSITORY, Cli
from tests.custom.conftest import assert_failures
from tests.sweeps import results_by_point, start_sweep, wait_for_sweep

LABELS = np.array([0, 1, 2, 0, 1])
TRAINERS = """\
import os, signal, sys, time
import numpy as np

CONSTANT = False

def fits_first(inputs, labels, n, seeds, seed, classes, shape, budget, count=40):
    assert (n, classes, shape) == (len(labels), 10, (1, 8, 8)) and seed < 2**31
    assert inputs.dtype == np.float32 and labels.dtype == np.int64
    right = np.arange(n) < count
    return {"right": right, "loss": 0.5, "epochs": budget.epochs, "order": seeds.order % 7}

def raises(inputs, labels): raise ValueError("no\\nidea")
def exits(inputs, labels): sys.exit(3)
def exits_at_once(inputs, labels): os._exit(3)
def crashes(inputs, labels): os.kill(os.getpid(), signal.SIGSEGV)
def hangs(inputs, labels): time.sleep(1000)
def returns_too_few(inputs, labels): return labels[:-1]
def prints(inputs, labels):
    print("x" * 10_000_000)
    return labels
def forks(inputs, labels):
    os.fork()
    return labels
def waits_at_barrier(inputs, labels):
    from barrier_net import pass_barrier
    pass_barrier()
    return np.where(np.arange(len(labels)) < 40, labels, -1)
def blocks_alarm(inputs, labels):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    time.sleep(1000)
def uses_model(inputs, labels, model):
    import torch
    with torch.no_grad():
        return model(torch.from_numpy(inputs))
"""
SPEC = """\
name: custom
fixed:
  data: {source: digits, labels: random, n_max: 200}
  training: {trainer: "trainers:fits_first", epochs: 3}
  search: {policy: bisection, start: 16, tolerance: 0.1}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "trainers.py").write_text(TRAINERS)
    (tmp_path / "custom.yaml").write_text(SPEC)
    return tmp_path


def make_call(folder: Path, name: str, seconds: float = 60.0) -> TrainerCall:
    code = find_code("trainers:x", folder)
    return TrainerCall(
        trainer=Trainer(name=f"trainers:{name}", code=code, kwargs={}),
        inputs=np.zeros((5, 1, 8, 8), np.float32), labels=LABELS, classes=10,
        seeds=ProbeSeeds.derive(0, 5, 0, nested=False), seconds=seconds,
        budget=Budget(epochs=3, steps=None, gradient_evaluations=None),
    )  # fmt: skip


def run(call: TrainerCall, should_stop: bool = False) -> object:
    return runner.run_trainer(call, Callbacks(should_stop=lambda: should_stop), Group(None))


@pytest.mark.parametrize(
    "result",
    [
        [True, False, True, True, False],
        [0, 0, 2, 0, 0],
        np.array([0.0, 0, 2, 0, 0]),
        np.eye(10)[[0, 0, 2, 0, 0]],
        {"right": [True, False, True, True, False], "loss": 0.5},
        {"predicted": [0, 0, 2, 0, 0], "epochs": 3, "steps": 7, "cost": 15, "rounds": 2},
        {"scores": np.eye(10, dtype=int)[[0, 0, 2, 0, 0]], "loss": np.float32(0.5)},
    ],
    ids=str,
)
def test_valid_results_are_parsed(result: object, folder: Path) -> None:
    parsed = parse_result(result, make_call(folder, "fits_first"))
    assert parsed.fitted.tolist() == [True, False, True, True, False]
    if isinstance(result, dict) and "cost" in result:
        assert (parsed.epochs, parsed.steps, parsed.cost) == (3, 7, 15)
        assert parsed.metrics == {"rounds": 2.0}
    elif isinstance(result, dict):
        assert parsed.loss == 0.5


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "returned an object of type NoneType, not an array"),
        ([True] * 4, "an array of shape (4,), but the shape for 5 samples must be (5,)"),
        (np.zeros((5, 3)), "an array of shape (5, 3), but the shape for 5 samples must be (5,)"),
        ([np.nan] * 5, "returned an array that contains NaN"),
        (["a"] * 5, "returned an array with unsupported dtype <U1"),
        ({"right": [0, 1, 0, 1, 1]}, "an array under the key right with unsupported dtype int64"),
        ({"scores": [0, 1, 0, 1, 1]}, "must be (5, 10)"),
        ({"loss": 1.0}, "does not have exactly one of the keys right, predicted, scores"),
        ({"right": [True] * 5, "predicted": [0] * 5}, "exactly one of the keys right"),
        ({"right": [True] * 5, "loss": "low"}, "returned a str as loss, not a number"),
        ({"right": [True] * 5, "epochs": 1.5}, "returned 1.5 as epochs; epochs must be a non"),
        ({"right": [True] * 5, "cost": -1}, "returned -1 as cost; cost must be a non-negative"),
    ],
)
def test_invalid_results_are_rejected(result: object, message: str, folder: Path) -> None:
    with pytest.raises(PointError, match=re.escape(message)):
        parse_result(result, make_call(folder, "fits_first"))


def test_trainer_gets_requested_arguments_and_seeded_random_states(folder: Path) -> None:
    result = train(make_call(folder, "fits_first"))
    assert result.fitted.all()
    assert result.metrics["order"] == ProbeSeeds.derive(0, 5, 0, nested=False).order % 7
    draws = []
    for _ in range(2):
        train(make_call(folder, "fits_first"))
        draws.append(np.random.random())
    assert draws[0] == draws[1]


def test_process_is_reused_until_it_ends_and_then_replaced(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(make_call(folder, "fits_first")).n_errors == 0
    first = runner._ensure_trainer_process().pid
    assert run(make_call(folder, "forks")).verdict == "fit"
    with pytest.raises(PointError, match="raised ValueError: no idea"):
        run(make_call(folder, "raises"))
    assert runner._ensure_trainer_process().pid == first
    with pytest.raises(PointError, match="SIGSEGV"):
        run(make_call(folder, "crashes"))
    assert run(make_call(folder, "fits_first")).n_errors == 0
    second = runner._ensure_trainer_process().pid
    monkeypatch.setattr(runner, "_GRACE", 0.5)
    with pytest.raises(PointError, match="exceeded its time limit"):
        run(make_call(folder, "blocks_alarm", seconds=0.5))
    assert not psutil.pid_exists(second)
    with pytest.raises(Interrupted, match="starts from scratch next time"):
        run(make_call(folder, "hangs"), should_stop=True)
    with pytest.raises(PointError, match="trains in one process"):
        runner.run_trainer(make_call(folder, "fits_first"), Callbacks(), Group(None, 0, 2))


BROKEN = {
    "raises": r"raised ValueError: no idea \(.*trainers.py:\d+\)",
    "exits": "raised SystemExit: 3",
    "exits_at_once": r"its process ended unexpectedly \(exit status 3\)",
    "crashes": r"its process ended unexpectedly \(SIGSEGV\)",
    "hangs": "exceeded its time limit",
    "returns_too_few": r"array of shape \(15,\), but the shape for 16 samples must be \(16,\)",
}


@pytest.mark.sweeps
def test_broken_trainers_fail_only_their_points(folder: Path, cli: Cli, profile: Path) -> None:
    names = [*BROKEN, "fits_first", "prints", "forks"]
    trainers = ", ".join(f"'trainers:{name}'" for name in names)
    text = SPEC.replace("epochs: 3", "seconds: 4")
    text = text.replace('trainer: "trainers:fits_first", ', "").replace("n_max: 200", "n_max: 16")
    text += f"grid:\n  training.trainer: [{trainers}]\n"
    (folder / "custom.yaml").write_text(text)
    result = cli("sweep", folder / "custom.yaml", "--profile", profile, check=1)
    assert_failures(cli, BROKEN.values(), done=3)
    assert len(result.stdout) + len(result.stderr) < 20_000
    wait_for(lambda: not trainer_processes(folder), "the end of the trainer processes")


def trainer_processes(folder: Path) -> list[int]:
    """Return the ids of the trainers' processes whose sweep was started in this folder."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline", "cwd"])
        if process.info["cwd"] == str(folder)
        and "flexhpc.custom.trainer" in " ".join(process.info["cmdline"] or [])
    ]


@pytest.mark.full_budget
@pytest.mark.sweeps
def test_killed_and_interrupted_sweeps_equal_an_undisturbed_one(folder: Path) -> None:
    """The trainer's process ends with its worker, and its probe is repeated."""
    spec = folder / "custom.yaml"
    spec.write_text(SPEC.replace("trainers:fits_first", "trainers:waits_at_barrier"))
    run, barrier = folder / "runs" / "custom", Barrier(folder)
    for number in (signal.SIGKILL, signal.SIGINT):
        barrier.hold(2)
        sweep = start_sweep(spec, keys="workers: 1\n")
        (trainer,) = barrier.wait(sweep=sweep)
        assert trainer in trainer_processes(folder)
        os.killpg(sweep.pid, number)
        wait_for_sweep(sweep)
        wait_for(lambda: not trainer_processes(folder), "the end of the trainer")
    barrier.open()
    flexhpc_output(folder, "sweep", spec, "--profile", "profile.yaml")
    disturbed = results_by_point(run)
    flexhpc_output(folder, "sweep", spec, "--profile", "profile.yaml", "--runs", "undisturbed")
    assert results_by_point(folder / "undisturbed" / "custom") == disturbed
    (point,) = disturbed.values()
    probes, estimate = point[0], point[-1]
    assert 36 <= estimate.emc <= 40
    assert all(cost == n * 3 for n, _, _, _, cost, *_ in probes)


@pytest.mark.parametrize(
    ("change", "message"),
    {
        "form": ("training.trainer=adam", 'must have the form module:name, not "adam"'),
        "no module": ("training.trainer='nowhere:fit'", "no module named nowhere"),
        "optimizer": ("training.optimizer=adam", "optimizer: has no effect with trainer"),
        "learning rate": (
            "training.lr=0.1", "has no effect with trainer: trainers:fits_first .* kwargs",
        ),
        "two budgets": ("training.steps=3", "training.steps: cannot be combined with epochs"),
        "set by flexhpc": ("training.code=abc", "training.code: is set by flexhpc; remove it"),
        "evaluation": ("evaluate.full=true", "has no effect with a custom trainer"),
        "mup": (
            "model={family: mlp, width: 8, init: mup}",
            "mup is not implemented for training.trainer: trainers:fits_first",
        ),
    }.values(),
)  # fmt: skip
def test_invalid_keys_are_rejected(change: str, message: str, folder: Path) -> None:
    changes = [change]
    if change.startswith("evaluate"):
        changes += ["data.labels=original", "data.test_fraction=0.2"]
    with pytest.raises(InputError, match=message):
        load_points(folder / "custom.yaml", changes)


def test_model_is_optional_only_with_a_trainer(folder: Path) -> None:
    (point,) = load_points(folder / "custom.yaml")[1]
    assert point.model.family == "none"
    text = SPEC.replace('trainer: "trainers:fits_first"', "optimizer: adam")
    (folder / "custom.yaml").write_text(text)
    with pytest.raises(InputError, match="family: is required"):
        load_points(folder / "custom.yaml")
    with pytest.raises(InputError, match=r"family `none` requires training\.trainer"):
        load_points(folder / "custom.yaml", ["model.family=none"])


def test_frozen_spec_keeps_its_trainer(folder: Path, tmp_path: Path) -> None:
    sweep, points = load_points(folder / "custom.yaml")
    frozen = tmp_path / "frozen.yaml"
    frozen.write_text(freeze(sweep, points))
    again = load_points(frozen)[1]
    assert [p.id for p in again] == [p.id for p in points]
    assert again[0].training.trainer == "trainers:fits_first"
    longer = load_points(folder / "custom.yaml", ["training.seconds=7200"])[1]
    assert longer[0].id == points[0].id, "an id does not depend on the time limit"


def test_validate_imports_the_trainer(folder: Path, cli: Cli) -> None:
    for change, message in (
        ("training.kwargs.counts=3", r"fits_first\(.*\) cannot be called: .*keyword argument"),
        ("training.trainer='trainers:fits_last'", "trainers has no attribute fits_last"),
        ("training.trainer='trainers:CONSTANT'", "is a bool, not a function"),
    ):
        result = cli("validate", folder / "custom.yaml", "--set", change, check=2)
        assert re.search(message, result.stdout + result.stderr), result.stdout + result.stderr


@pytest.mark.sweeps
def test_measure_with_a_trainer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(folder))
    rng = np.random.default_rng(0)
    data = (rng.normal(size=(300, 4)), rng.integers(0, 3, 300))
    search = {"policy": "bisection", "start": 16, "tolerance": 0.1}

    def fits_60(inputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return np.arange(len(labels)) < 60

    result = flexhpc.measure(data=data, training={"trainer": fits_60}, search=search)
    assert 55 <= result.emc <= 62
    assert result.params == 0
    assert result.plot().svg().startswith("<svg")
    images = (rng.integers(0, 9, (300, 8, 8), dtype=np.uint8), rng.integers(0, 10, 300))
    training = {"trainer": "trainers:fits_first", "kwargs": {"count": 30}}
    imported = flexhpc.measure(data=images, training=training, search=search)
    assert 27 <= imported.emc <= 30
    assert set(imported.probes["loss"]) == {0.5}
    with_model = flexhpc.measure(
        {"family": "linear"}, images, training={"trainer": "trainers:uses_model"}, search=search
    )
    assert with_model.params == 650


EXAMPLES = sorted((REPOSITORY / "sweeps" / "trainers").glob("*.yaml"))
SMALLER = {
    "lightning": ("model.width=16", "training.epochs=30"),
    "huggingface": ("model.width=16", "training.epochs=30"),
    "perceptron": ("data.dims=10", "training.kwargs.passes=300"),
    "lightgbm": ("training.kwargs.rounds=2",),
}


@pytest.mark.sweeps
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_included_specs_of_trainers_run(path: Path, cli: Cli, profile: Path) -> None:
    changes = ["search.policy=bisection", "search.start=8", "search.tolerance=0.5",
               *SMALLER.get(path.stem, ())]  # fmt: skip
    sets = [word for change in changes for word in ("--set", change)]
    cli("sweep", path, "--profile", profile, *sets)
    (name,) = os.listdir(profile.parent / "runs")
    rows = json.loads(cli("results", f"runs/{name}", "--format", "json").stdout)
    assert all(row["emc"] >= 1 for row in rows), rows
    if path.stem == "perceptron":  # Cover 1965: 2 (d + 1) = 22, one training run per n
        assert 11 <= rows[0]["emc"] <= 44
    if path.stem == "scikit_learn":
        emcs = {str(row["training"]).split("'")[3].split(":")[1]: row["emc"] for row in rows}
        assert emcs["neighbours"] < emcs["forest"]
    if path.stem == "lightgbm":
        few_leaves, many_leaves = sorted(rows, key=lambda row: row["training.kwargs.num_leaves"])
        assert few_leaves["emc"] < many_leaves["emc"]
    if path.stem in ("lightning", "huggingface"):
        assert rows[0]["params"] == 1210
