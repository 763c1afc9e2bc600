from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from flexhpc.config.sections.gates import (
    CurvatureGate,
    Gates,
    GradientGate,
    PlateauGate,
    StabilityGate,
)
from flexhpc.config.sections.model import Cnn, Mlp, Timm
from flexhpc.config.sections.training import Adam, AdamW, Gd, Sgd, Training
from flexhpc.errors import Interrupted, PointError
from flexhpc.models import build
from flexhpc.training import Callbacks, resident, train
from flexhpc.training import engine as engine_module
from tests.training.helpers import SMALL, probe_data, run, run_and_keep, same

ADAM = Adam(optimizer="adam", lr=1e-2, batch_size=32, epochs=150)
TRAININGS: dict[str, Training] = {
    "sgd": Sgd(optimizer="sgd", lr=0.05, batch_size=32, epochs=40),
    "gd": Gd(optimizer="gd", lr=0.2, momentum=0.5, epochs=40),
    "adam": Adam(optimizer="adam", lr=1e-2, batch_size=32, epochs=40),
    "adamw": AdamW(optimizer="adamw", lr=1e-2, batch_size=32, epochs=40),
    "cosine": Sgd(optimizer="sgd", lr=0.05, batch_size=32, epochs=40, schedule="cosine"),
    "steps": Adam(optimizer="adam", lr=1e-2, batch_size=32, steps=97),
    "looks": Adam(optimizer="adam", lr=1e-2, batch_size=32, steps=97, curves="looks"),
    "fp64": Adam(optimizer="adam", lr=1e-2, batch_size=32, epochs=20, precision="fp64"),
    "bf16": Adam(optimizer="adam", lr=1e-2, batch_size=32, epochs=20, precision="bf16"),
}


@pytest.mark.parametrize("curves", ["batches", "looks"])
def test_a_fit_stops_at_once(curves: str) -> None:
    outcome = run(ADAM.model_copy(update={"curves": curves}), 40)
    assert outcome.verdict == "fit"
    assert outcome.n_errors == 0
    assert outcome.fitted.all()
    assert outcome.epochs < 150
    assert outcome.cost == 40 * outcome.epochs
    assert (outcome.error_curve[:-1] > 0).all()
    assert curves == "batches" or outcome.error_curve[-1] == 0
    assert len(outcome.loss_curve) == outcome.epochs


@pytest.mark.parametrize("curves", ["batches", "looks"])
def test_a_budget_that_runs_out_while_improving_is_unconverged(curves: str) -> None:
    outcome = run(ADAM.model_copy(update={"epochs": 15, "curves": curves}), 600)
    assert outcome.verdict == "unconverged"
    assert outcome.epochs == 15
    assert outcome.n_errors == (~outcome.fitted).sum() > 0
    assert curves == "batches" or outcome.n_errors == outcome.error_curve[-1]
    assert outcome.cost == 15 * 600


def test_a_plateau_stops_early_and_is_not_fit() -> None:
    tiny = Mlp(family="mlp", width=2, depth=1)
    gates = Gates(plateau=PlateauGate(patience=50))
    outcome = run(ADAM.model_copy(update={"epochs": 1000, "gates": gates}), 800, model=tiny)
    assert outcome.verdict == "not_fit"
    assert outcome.epochs < 1000
    assert outcome.readings["plateau_epochs"] == 50
    # Nothing in the last 50 epochs improved on what was before them.
    assert outcome.error_curve[-50:].min() >= outcome.error_curve[:-50].min()
    assert outcome.loss_curve[-50:].min() > outcome.loss_curve[:-50].min() * (1 - 1e-3)


def test_without_the_plateau_gate_the_budget_is_used_up() -> None:
    tiny = Mlp(family="mlp", width=2, depth=1)
    gates = Gates(
        plateau=PlateauGate(mode="off"),
        gradient=GradientGate(mode="off"),
        stability=StabilityGate(mode="off"),
    )
    outcome = run(ADAM.model_copy(update={"epochs": 120, "gates": gates}), 800, model=tiny)
    assert (outcome.verdict, outcome.epochs, outcome.readings) == ("not_fit", 120, {})


def test_a_cosine_schedule_is_never_cut_by_a_plateau() -> None:
    tiny = Mlp(family="mlp", width=1, depth=1)
    gates = Gates(plateau=PlateauGate(patience=3))
    cosine = Sgd(optimizer="sgd", lr=1e-4, epochs=30, schedule="cosine", gates=gates)
    constant = cosine.model_copy(update={"schedule": "constant", "lr": 1e-6})
    assert run(cosine.model_copy(update={"lr": 1e-6}), 300, model=tiny).epochs == 30
    assert run(constant, 300, model=tiny).epochs < 30


@pytest.mark.parametrize("lr", [1e6, 3e5])
def test_divergence_is_a_verdict(lr: float) -> None:
    deep = Mlp(family="mlp", width=16, depth=6, activation="relu")
    outcome = run(Sgd(optimizer="sgd", lr=lr, epochs=50), 200, model=deep)
    assert outcome.verdict == "diverged"
    assert not math.isfinite(outcome.loss)
    assert not outcome.fitted.all()


@pytest.mark.parametrize("name", TRAININGS)
def test_the_same_probe_gives_the_same_outcome(name: str) -> None:
    same(run(TRAININGS[name], 150), run(TRAININGS[name], 150))


def test_another_seed_gives_another_outcome() -> None:
    first, second = run(TRAININGS["sgd"], 150), run(TRAININGS["sgd"], 150, repeat=1)
    assert not np.array_equal(first.loss_curve, second.loss_curve)


@pytest.mark.parametrize("name", TRAININGS)
@pytest.mark.parametrize("stops", [[1], [7, 8, 61]])
def test_an_interrupted_probe_goes_on_bitwise(name: str, stops: list[int], tmp_path: Path) -> None:
    undisturbed = run(TRAININGS[name], 150)
    assert undisturbed.steps > 61 or name in ("gd",)
    again = resumed(TRAININGS[name], stops, tmp_path / "probe.ckpt", SMALL)
    same(undisturbed, again)


def test_random_layers_resume_bitwise(tmp_path: Path) -> None:
    """Dropout draws from torch's random state, which the checkpoint must carry."""
    kwargs = {"img_size": 8, "patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 2}
    model = Timm(family="timm:vit_tiny_patch16_224", kwargs=kwargs | {"drop_rate": 0.5})
    training = Adam(optimizer="adam", lr=1e-2, batch_size=32, epochs=6)
    undisturbed = run(training, 60, model=model)
    same(undisturbed, resumed(training, [3, 5], tmp_path / "probe.ckpt", model))


def resumed(training: Training, stops: list[int], path: Path, model: object) -> object:
    """Run a probe that is interrupted at these steps (counted from each start)."""
    for stop in stops:
        count = iter(range(1, 10**6))
        callbacks = Callbacks(
            should_stop=lambda c=count, s=stop: next(c) == s, checkpoint=path, key="k"
        )
        try:
            return run(training, 150 if model is SMALL else 60, model=model, callbacks=callbacks)
        except Interrupted:
            assert path.exists()
    callbacks = Callbacks(checkpoint=path, key="k")
    return run(training, 150 if model is SMALL else 60, model=model, callbacks=callbacks)


def test_a_foreign_or_damaged_checkpoint_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "probe.ckpt"
    callbacks = Callbacks(
        should_stop=iter([False] * 9 + [True]).__next__, checkpoint=path, key="other"
    )
    with pytest.raises(Interrupted):
        run(TRAININGS["sgd"], 150, callbacks=callbacks)
    undisturbed = run(TRAININGS["sgd"], 150)
    same(undisturbed, run(TRAININGS["sgd"], 150, callbacks=Callbacks(checkpoint=path, key="mine")))
    path.write_bytes(path.read_bytes()[:-500])
    same(undisturbed, run(TRAININGS["sgd"], 150, callbacks=Callbacks(checkpoint=path, key="other")))


def test_checkpoints_are_saved_on_time(tmp_path: Path) -> None:
    path = tmp_path / "probe.ckpt"
    callbacks = Callbacks(checkpoint=path, checkpoint_every=0.0, key="k")
    run(TRAININGS["sgd"].model_copy(update={"epochs": 2}), 100, callbacks=callbacks)
    assert path.exists()


def test_full_batch_gd_is_the_gradient_of_the_whole_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """One update in chunks of 7 against the gradient of the whole set at once, in float64."""
    monkeypatch.setattr(engine_module, "_CHUNK", 7)
    data = probe_data(100)
    gd = Gd(optimizer="gd", lr=0.5, epochs=1, precision="fp64")
    torch.manual_seed(data.init_seed)
    reference = build(SMALL, (1, 8, 8), 10).double()
    loss = torch.nn.functional.cross_entropy(reference(data.inputs.double()), data.labels)
    loss.backward()
    with torch.no_grad():
        for p in reference.parameters():
            p -= 0.5 * p.grad
    _, trained = run_and_keep(gd, 100)
    for mine, theirs in zip(trained.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)


def test_large_images_go_through_a_network_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """At both ends of a training, too: a batch that fits into a GPU's memory must be enough."""
    monkeypatch.setattr(resident, "_MOST_VALUES", 64 * 100)  # of 8 x 8
    seen: list[int] = []

    def make(norm: str) -> torch.nn.Module:
        model = build(Cnn(family="cnn", width=2, depth=1, norm=norm), (1, 8, 8), 10)
        model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
        return model

    gates = Gates(curvature=CurvatureGate(mode="report", products=2))
    adam = Adam(optimizer="adam", lr=1e-2, batch_size=32, epochs=2, gates=gates)
    gd = Gd(optimizer="gd", lr=1e-2, epochs=2, gates=gates)
    for training, norm in ((adam, "batch"), (gd, "none")):
        train(training, partial(make, norm), probe_data(600), Callbacks())
        assert max(seen) == 100
        seen.clear()


def test_gradient_reading_against_autograd() -> None:
    data = probe_data(100)
    training = Sgd(optimizer="sgd", lr=0.05, epochs=3, precision="fp64")
    outcome, model = run_and_keep(training, 100)
    model.zero_grad()
    torch.nn.functional.cross_entropy(model(data.inputs.double()), data.labels).backward()
    squares = sum(float(p.grad.square().sum()) for p in model.parameters())
    assert outcome.readings["gradient_norm"] == pytest.approx(math.sqrt(squares), rel=1e-10)
    sizes = sum(float(p.detach().square().sum()) for p in model.parameters())
    assert outcome.readings["parameter_norm"] == pytest.approx(math.sqrt(sizes), rel=1e-10)


def test_a_step_budget_is_exact() -> None:
    outcome = run(Adam(optimizer="adam", batch_size=32, steps=13), 100)
    assert outcome.steps == 13
    assert outcome.epochs == 4
    assert outcome.cost == 3 * 100 + 25


def test_a_full_disk_costs_the_checkpoint_not_the_training(tmp_path: Path) -> None:
    training = TRAININGS["sgd"]
    callbacks = Callbacks(checkpoint=tmp_path / "file" / "x.ckpt", checkpoint_every=0.0, key="k")
    (tmp_path / "file").write_text("in the way")
    same(run(training, 150), run(training, 150, callbacks=callbacks))


def test_batchnorm_on_one_sample_is_one_clear_line() -> None:
    normed = Mlp(family="mlp", width=4, depth=1, norm="batch")
    with pytest.raises(PointError, match="a batch of one sample cannot be trained on"):
        run(TRAININGS["sgd"], 1, model=normed)


def test_global_random_state_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run(TRAININGS["sgd"].model_copy(update={"epochs": 1}), 20)
    torch.testing.assert_close(torch.rand(3), expected)
