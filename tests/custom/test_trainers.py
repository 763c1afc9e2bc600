"""Trainers of the user's: what they are given, what they may answer, and how they may go wrong."""

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
from flexhpc.config import checked, freeze
from flexhpc.custom.code import find_code
from flexhpc.custom.trainer import Budget, Trainer, TrainerCall, parse_result, train
from flexhpc.errors import InputError, Interrupted, PointError
from flexhpc.measuring import trainer as runner
from flexhpc.seeds import ProbeSeeds
from flexhpc.training import Callbacks, Group
from tests.barrier import Barrier, wait_for
from tests.command import succeeded
from tests.conftest import REPOSITORY, Cli
from tests.sweeps import contents, finish, start

LABELS = np.array([0, 1, 2, 0, 1])
FITS = """\
import os, signal, sys, time
import numpy as np

STOPPED = False

def most(inputs, labels, n, seeds, seed, classes, shape, budget, most=40):
    assert (n, classes, shape) == (len(labels), 10, (1, 8, 8)) and seed < 2**31
    assert inputs.dtype == np.float32 and labels.dtype == np.int64
    right = np.arange(n) < most
    return {"right": right, "loss": 0.5, "epochs": budget.epochs, "order": seeds.order % 7}

def raises(inputs, labels): raise ValueError("no\\nidea")
def exits(inputs, labels): sys.exit(3)
def ends_hard(inputs, labels): os._exit(3)
def crashes(inputs, labels): os.kill(os.getpid(), signal.SIGSEGV)
def hangs(inputs, labels): time.sleep(1000)
def answers_badly(inputs, labels): return labels[:-1]
def prints(inputs, labels):
    print("x" * 10_000_000)
    return labels
def forks(inputs, labels):
    os.fork()
    return labels
def waits(inputs, labels):
    from gated import pass_barrier
    pass_barrier()
    return np.where(np.arange(len(labels)) < 40, labels, -1)
def deaf(inputs, labels):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    time.sleep(1000)
def trains(inputs, labels, model):
    import torch
    with torch.no_grad():
        return model(torch.from_numpy(inputs))
"""
SPEC = """\
name: own
fixed:
  data: {source: digits, labels: random, n_max: 200}
  training: {trainer: "fits:most", epochs: 3}
  search: {policy: bisection, start: 16, tolerance: 0.1}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "fits.py").write_text(FITS)
    (tmp_path / "own.yaml").write_text(SPEC)
    return tmp_path


def task(folder: Path, name: str, seconds: float = 60.0) -> TrainerCall:
    return TrainerCall(
        trainer=Trainer(
            name=f"fits:{name}", code=find_code("fits:x", folder), pinned=False, kwargs={}
        ),
        inputs=np.zeros((5, 1, 8, 8), np.float32), labels=LABELS, classes=10,
        seeds=ProbeSeeds.of(0, 5, 0, nested=False), seconds=seconds,
        budget=Budget(epochs=3, steps=None, gradient_evaluations=None),
    )  # fmt: skip


def run(asked: TrainerCall, stopping: bool = False) -> object:
    callbacks = Callbacks(should_stop=lambda: stopping)
    return runner.run_trainer(asked, callbacks, Group(None))


@pytest.mark.parametrize(
    "given",
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
def test_what_a_trainer_may_answer(given: object, folder: Path) -> None:
    answer = parse_result("t", given, task(folder, "most"))
    assert answer.fitted.tolist() == [True, False, True, True, False]
    if isinstance(given, dict) and "cost" in given:
        assert (answer.epochs, answer.steps, answer.cost) == (3, 7, 15)
        assert answer.metrics == {"rounds": 2.0}
    elif isinstance(given, dict):
        assert answer.loss == 0.5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "returned an object of NoneType, not an array"),
        ([True] * 4, "an array (4,), not (5,) for 5 samples"),
        (np.zeros((5, 3)), "an array (5, 3), not (5,)"),
        ([np.nan] * 5, "returned NaN"),
        (["a"] * 5, "returned an array of <U1"),
        ({"right": [0, 1, 0, 1, 1]}, "returned right of int64"),
        ({"scores": [0, 1, 0, 1, 1]}, "not (5, 10)"),
        ({"loss": 1.0}, "without exactly one of right, predicted, scores"),
        ({"right": [True] * 5, "predicted": [0] * 5}, "exactly one of right"),
        ({"right": [True] * 5, "loss": "low"}, "returned a str as loss, not a number"),
        ({"right": [True] * 5, "epochs": 1.5}, "returned 1.5 as epochs, not a count"),
        ({"right": [True] * 5, "cost": -1}, "returned -1 as cost, not a count"),
    ],
)
def test_what_is_no_answer(given: object, message: str, folder: Path) -> None:
    with pytest.raises(PointError, match=re.escape(message)):
        parse_result("t", given, task(folder, "most"))


def test_it_is_given_what_it_asks_for_and_random_states_are_seeded(folder: Path) -> None:
    answer = train(task(folder, "most"))
    assert answer.fitted.all()
    assert answer.metrics["order"] == ProbeSeeds.of(0, 5, 0, nested=False).order % 7
    drawn = []
    for _ in range(2):
        train(task(folder, "most"))
        drawn.append(np.random.random())
    assert drawn[0] == drawn[1]


def test_a_process_is_used_until_it_ends(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever becomes of it, the next probe finds a living one."""
    assert run(task(folder, "most")).n_errors == 0
    first = runner._trainer_process().pid
    assert run(task(folder, "forks")).verdict == "fit"
    with pytest.raises(PointError, match="raised ValueError: no idea"):
        run(task(folder, "raises"))
    assert runner._trainer_process().pid == first
    with pytest.raises(PointError, match="SIGSEGV"):
        run(task(folder, "crashes"))
    assert run(task(folder, "most")).n_errors == 0
    second = runner._trainer_process().pid
    monkeypatch.setattr(runner, "_GRACE", 0.5)
    with pytest.raises(PointError, match="exceeded its time limit"):
        run(task(folder, "deaf", seconds=0.5))
    assert not psutil.pid_exists(second)
    with pytest.raises(Interrupted, match="starts from scratch next time"):
        run(task(folder, "hangs"), stopping=True)
    with pytest.raises(PointError, match="trains in one process"):
        runner.run_trainer(task(folder, "most"), Callbacks(), Group(None, 0, 2))


WRONG = {
    "raises": r"raised ValueError: no idea \(.*fits.py:\d+\)",
    "exits": "raised SystemExit: 3",
    "ends_hard": r"ended its process \(exit status 3\)",
    "crashes": r"ended its process \(SIGSEGV\)",
    "hangs": "exceeded its time limit",
    "answers_badly": r"returned an array \(15,\), not \(16,\)",
}


@pytest.mark.sweeps
def test_wrong_trainers_fail_their_points(folder: Path, cli: Cli, untracked: Path) -> None:
    names = [*WRONG, "most", "prints", "forks"]
    listed = ", ".join(f"'fits:{name}'" for name in names)
    text = SPEC.replace("epochs: 3", "seconds: 4")
    text = text.replace('trainer: "fits:most", ', "").replace("n_max: 200", "n_max: 16")
    text += f"grid:\n  training.trainer: [{listed}]\n"
    (folder / "own.yaml").write_text(text)
    done = cli("sweep", folder / "own.yaml", "--profile", untracked, check=None)
    assert done.returncode == 1
    states = json.loads(cli("status", "runs/own", "--json", check=1).stdout)
    assert [state["state"] for state in states] == ["failed"] * len(WRONG) + ["done"] * 3
    for state, message in zip(states, WRONG.values(), strict=False):
        assert re.search(message, state["message"]), (message, state["message"])
        assert "\n" not in state["message"]
    assert len(done.stdout) + len(done.stderr) < 20_000
    children = psutil.Process().children(recursive=True)
    assert not [c for c in children if "flexhpc.custom.trainer" in " ".join(c.cmdline())]


def trainers_of(run: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            mine = Path(process.cwd()) == run.parent.parent
            if mine and "flexhpc.custom.trainer" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.sweeps
def test_killed_and_stopped_in_the_middle_it_ends_as_if_nothing_had_been(folder: Path) -> None:
    """The trainer's process ends with its worker, and its probe is started again."""
    spec = folder / "own.yaml"
    spec.write_text(SPEC.replace("fits:most", "fits:waits"))
    run, barrier = folder / "runs" / "own", Barrier(folder)
    for number in (signal.SIGKILL, signal.SIGINT):
        barrier.hold(2)
        sweep = start(spec, keys="workers: 1\n")
        (trainer,) = barrier.wait(sweep=sweep)
        assert trainer in [process.pid for process in trainers_of(run)]
        os.killpg(sweep.pid, number)
        finish(sweep)
        wait_for(lambda: not trainers_of(run), "the end of the trainer")
    barrier.open()
    sweep = start(spec)
    output = finish(sweep)
    assert sweep.returncode == 0, output
    disturbed = contents(run)
    succeeded(folder, "sweep", spec, "--profile", "profile.yaml", "--runs", "undisturbed")
    assert contents(folder / "undisturbed" / "own") == disturbed
    (found,) = disturbed.values()
    probes, estimate = found[0], found[-1]
    assert 36 <= estimate.emc <= 40
    assert all(cost == n * 3 for n, _, _, _, cost, *_ in probes)


@pytest.mark.parametrize(
    ("change", "message"),
    {
        "form": ("training.trainer=adam", 'must have the form module:name, not "adam"'),
        "no module": ("training.trainer='nowhere:fit'", "no module named nowhere"),
        "an optimizer": ("training.optimizer=adam", "optimizer: has no effect with trainer"),
        "a rate": ("training.lr=0.1", "has no effect with trainer: fits:most .* kwargs"),
        "two budgets": ("training.steps=3", "training.steps: cannot be combined with epochs"),
        "filled in": ("training.code=abc", "training.code: is set by flexhpc; remove it"),
        "evaluated": ("evaluate.full=true", "has no effect with a custom trainer"),
        "mup": ("model={family: mlp, width: 8, init: mup}", "mup is not implemented for fits:most"),
    }.values(),
)  # fmt: skip
def test_errors_are_reported_in_advance(change: str, message: str, folder: Path) -> None:
    changes = [change]
    if change.startswith("evaluate"):
        changes += ["data.labels=original", "data.test_fraction=0.2"]
    with pytest.raises(InputError, match=message):
        checked(folder / "own.yaml", changes)


def test_no_model_is_for_trainers_alone(folder: Path) -> None:
    (point,) = checked(folder / "own.yaml")[1]
    assert point.model.family == "none"
    text = SPEC.replace('trainer: "fits:most"', "optimizer: adam")
    (folder / "own.yaml").write_text(text)
    with pytest.raises(InputError, match="family: is required"):
        checked(folder / "own.yaml")
    with pytest.raises(InputError, match=r"family: none is for training\.trainer only"):
        checked(folder / "own.yaml", ["model.family=none"])


def test_a_frozen_spec_keeps_its_trainer(folder: Path, tmp_path: Path) -> None:
    sweep, points = checked(folder / "own.yaml")
    frozen = tmp_path / "frozen.yaml"
    frozen.write_text(freeze(sweep, points))
    again = checked(frozen)[1]
    assert [p.id for p in again] == [p.id for p in points]
    assert again[0].training.trainer == "fits:most"
    longer = checked(folder / "own.yaml", ["training.seconds=7200"])[1]
    assert longer[0].id == points[0].id, "a time limit is no part of an id"


def test_validate_looks_at_it(folder: Path, cli: Cli) -> None:
    for change, message in (
        ("training.kwargs.mots=3", r"most\(.*\): got an unexpected keyword argument"),
        ("training.trainer='fits:least'", "fits has no least"),
        ("training.trainer='fits:STOPPED'", "is a bool, not a function"),
    ):
        done = cli("validate", folder / "own.yaml", "--set", change, check=2)
        assert re.search(message, done.stdout + done.stderr), done.stdout + done.stderr


@pytest.mark.sweeps
def test_from_python(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(folder))
    draw = np.random.default_rng(0)
    data = (draw.normal(size=(300, 4)), draw.integers(0, 3, 300))
    search = {"policy": "bisection", "start": 16, "tolerance": 0.1}

    def halves(inputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return np.arange(len(labels)) < 60

    found = flexhpc.measure(data=data, training={"trainer": halves}, search=search)
    assert 55 <= found.emc <= 62
    assert found.params == 0
    assert found.plot().svg().startswith("<svg")
    images = (draw.integers(0, 9, (300, 8, 8), dtype=np.uint8), draw.integers(0, 10, 300))
    named = flexhpc.measure(
        data=images, training={"trainer": "fits:most", "kwargs": {"most": 30}}, search=search
    )
    assert 27 <= named.emc <= 30
    assert set(named.probes["loss"]) == {0.5}
    with_model = flexhpc.measure(
        {"family": "linear"}, images, training={"trainer": "fits:trains"}, search=search
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
def test_the_examples_measure_what_they_say(path: Path, cli: Cli, untracked: Path) -> None:
    changes = ["search.policy=bisection", "search.start=8", "search.tolerance=0.5",
               *SMALLER.get(path.stem, ())]  # fmt: skip
    sets = [word for change in changes for word in ("--set", change)]
    cli("sweep", path, "--profile", untracked, *sets)
    (name,) = os.listdir(untracked.parent / "runs")
    rows = json.loads(cli("results", f"runs/{name}", "--format", "json").stdout)
    found = {str(row.get("training", row["point_id"])): row for row in rows}
    assert all(row["emc"] >= 1 for row in rows), rows
    if path.stem == "perceptron":  # Cover 1965: 2 (d + 1) = 22, one training run per n
        assert 11 <= rows[0]["emc"] <= 44
    if path.stem == "scikit_learn":
        emcs = {key.split("'")[3].split(":")[1]: row["emc"] for key, row in found.items()}
        assert emcs["neighbours"] < emcs["forest"]
    if path.stem == "lightgbm":
        fewer, more = sorted(rows, key=lambda row: row["training.kwargs.num_leaves"])
        assert fewer["emc"] < more["emc"]
    if path.stem in ("lightning", "huggingface"):
        assert rows[0]["params"] == 1210
