"""The training loop: verdicts, checkpoints, chunks and random states."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from flexhpc.config.sections.gates import CurvatureGate, Gates, PlateauGate
from flexhpc.config.sections.model import Cnn, Mlp, Resnet, Timm
from flexhpc.config.sections.training import Adam, Gd, Sam, Sgd, Training
from flexhpc.errors import Interrupted
from flexhpc.models import build
from flexhpc.training import Callbacks, device_inputs, train
from tests.sections import OPTIMIZERS, optimizer
from tests.training.helpers import (
    SMALL,
    assert_outcomes_equal,
    probe_data,
    resume,
    run,
    run_with_model,
)

ADAM = Adam(optimizer="adam", lr=1e-2, batch_size=32, epochs=150)
TRAININGS: dict[str, Training] = {name: optimizer(name, steps=97) for name in OPTIMIZERS} | {
    "sgd": optimizer("sgd", lr=0.05, epochs=40),
    "gd": optimizer("gd", lr=0.2, momentum=0.5, steps=97),
    "muon": optimizer("muon", epochs=20, schedule="cosine", warmup=5),
    "cosine": optimizer("sgd", lr=0.05, epochs=40, schedule="cosine"),
    "steps": optimizer("adam", lr=1e-2, steps=97),
    "evaluation": optimizer("adam", lr=1e-2, steps=97, curves="evaluation"),
    "fp64": optimizer("adam", lr=1e-2, epochs=20, precision="fp64"),
    "bf16": optimizer("adam", lr=1e-2, epochs=20, precision="bf16"),
    "extended": optimizer(
        "sgd", lr=0.05, epochs=5, unconverged="extend", warmup=30, clip_norm=0.5, sam=Sam(),
        label_smoothing=0.1,
    ),
    "dropout": optimizer("adam", lr=1e-2, epochs=6),
    "channels_last": optimizer("adam", lr=1e-3, epochs=4),
}  # fmt: skip


@pytest.mark.parametrize("curves", ["batches", "evaluation"])
def test_a_fit_ends_the_training_run(curves: str) -> None:
    outcome = run(ADAM.model_copy(update={"curves": curves}), 40)
    assert outcome.verdict == "fit"
    assert outcome.n_errors == 0
    assert outcome.fitted.all()
    assert outcome.epochs < 150
    assert outcome.cost == 40 * outcome.epochs
    assert (outcome.error_curve[:-1] > 0).all()
    assert curves == "batches" or outcome.error_curve[-1] == 0
    assert len(outcome.loss_curve) == outcome.epochs


@pytest.mark.parametrize("curves", ["batches", "evaluation"])
def test_an_improving_training_run_is_unconverged_at_the_end_of_its_budget(curves: str) -> None:
    outcome = run(ADAM.model_copy(update={"epochs": 15, "curves": curves}), 600)
    assert outcome.verdict == "unconverged"
    assert outcome.epochs == 15
    assert outcome.n_errors == (~outcome.fitted).sum() > 0
    assert curves == "batches" or outcome.n_errors == outcome.error_curve[-1]
    assert outcome.cost == 15 * 600


class _FitsInTraining(torch.nn.Module):
    """A network whose outputs are constant in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(64, 10)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.linear(inputs.flatten(1))
        return logits if self.training else logits * 0


def test_samples_that_are_missed_only_in_evaluation_are_counted() -> None:
    outcome = train(ADAM, _FitsInTraining, probe_data(20), Callbacks())
    assert outcome.verdict != "fit"
    assert outcome.error_curve[-1] == 0
    assert outcome.metrics["missed_only_in_evaluation"] == outcome.n_errors > 10
    for labels in (ADAM.model_copy(update={"epochs": 2}), ADAM):
        assert "missed_only_in_evaluation" not in run(labels, 20).metrics


def test_a_plateau_ends_the_training_run_as_not_fit() -> None:
    gates = Gates(plateau=PlateauGate(patience=50))
    training = ADAM.model_copy(update={"epochs": 1000, "gates": gates})
    outcome, model = run_with_model(training, 800, Mlp(family="mlp", width=2, depth=1))
    assert outcome.verdict == "not_fit"
    assert outcome.epochs < 1000
    assert outcome.metrics["plateau_epochs"] == 50
    data = probe_data(800)
    np.testing.assert_array_equal(outcome.fitted, model(data.inputs).argmax(1) == data.labels)
    # None of the last 50 epochs is an improvement.
    assert outcome.error_curve[-50:].min() >= outcome.error_curve[:-50].min()
    assert outcome.loss_curve[-50:].min() > outcome.loss_curve[:-50].min() * (1 - 1e-3)


def test_a_plateau_does_not_end_a_cosine_schedule() -> None:
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


MODELS = {
    "dropout": Timm(family="timm:vit_tiny_patch16_224", kwargs={
        "img_size": 8, "patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 2,
        "drop_rate": 0.5,
    }),
    "channels_last": Resnet(family="resnet", width=4, depth=2),
}  # fmt: skip
STOPS = {"extended": (120, [38]), "dropout": (60, [3, 5]), "channels_last": (60, [1, 3, 2])}
"""Number of samples, and updates after which each start is interrupted."""


@pytest.mark.parametrize("name", TRAININGS)
def test_an_interrupted_training_run_is_resumed_bitwise(name: str, tmp_path: Path) -> None:
    """So are the states of all optimizers, the random state of dropout and the memory format."""
    training, model = TRAININGS[name], MODELS.get(name, SMALL)
    n, stops = STOPS.get(name, (150, [1, 7, 8, 61]))
    uninterrupted = run(training, n, model=model)
    assert uninterrupted.steps > sum(stops)
    assert uninterrupted.epochs > 5 or name != "extended"
    resumed = resume(training, n, stops, tmp_path / "probe.ckpt", model=model)
    assert_outcomes_equal(uninterrupted, resumed)


def test_damaged_checkpoints_and_checkpoints_of_other_keys_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "probe.ckpt"
    training = TRAININGS["sgd"]
    callbacks = Callbacks(
        should_stop=iter([False] * 9 + [True]).__next__, checkpoint=path, key="other"
    )
    with pytest.raises(Interrupted):
        run(training, 150, callbacks=callbacks)
    uninterrupted = run(training, 150)
    outcome = run(training, 150, callbacks=Callbacks(checkpoint=path, key="mine"))
    assert_outcomes_equal(uninterrupted, outcome)
    path.write_bytes(path.read_bytes()[:-500])
    outcome = run(training, 150, callbacks=Callbacks(checkpoint=path, key="other"))
    assert_outcomes_equal(uninterrupted, outcome)


def test_checkpoints_are_saved_periodically(tmp_path: Path) -> None:
    path = tmp_path / "probe.ckpt"
    callbacks = Callbacks(checkpoint=path, checkpoint_every=0.0, key="k")
    run(TRAININGS["sgd"].model_copy(update={"epochs": 2}), 100, callbacks=callbacks)
    assert path.exists()


def test_large_images_are_processed_in_small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations as well: the memory of a GPU is sufficient for a training batch."""
    monkeypatch.setattr(device_inputs, "_MAX_VALUES", 64 * 100)  # of 8 x 8
    sizes: list[int] = []

    def make(norm: str) -> torch.nn.Module:
        model = build(Cnn(family="cnn", width=2, depth=1, norm=norm), (1, 8, 8), 10)
        model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
        return model

    gates = Gates(curvature=CurvatureGate(mode="report", products=2))
    adam = Adam(optimizer="adam", lr=1e-2, batch_size=32, epochs=2, gates=gates)
    gd = Gd(optimizer="gd", lr=1e-2, epochs=2, gates=gates)
    for training, norm in ((adam, "batch"), (gd, "none")):
        train(training, partial(make, norm), probe_data(600), Callbacks())
        assert max(sizes) == 100
        sizes.clear()


def test_gradient_and_parameter_norms_equal_those_of_autograd() -> None:
    data = probe_data(100)
    training = Sgd(optimizer="sgd", lr=0.05, epochs=3, precision="fp64")
    outcome, model = run_with_model(training, 100)
    model.zero_grad()
    torch.nn.functional.cross_entropy(model(data.inputs.double()), data.labels).backward()
    squares = sum(float(p.grad.square().sum()) for p in model.parameters())
    assert outcome.metrics["gradient_norm"] == pytest.approx(math.sqrt(squares), rel=1e-10)
    total = sum(float(p.detach().square().sum()) for p in model.parameters())
    assert outcome.metrics["parameter_norm"] == pytest.approx(math.sqrt(total), rel=1e-10)


def test_a_checkpoint_that_cannot_be_saved_does_not_end_the_training_run(tmp_path: Path) -> None:
    training = TRAININGS["sgd"]
    callbacks = Callbacks(checkpoint=tmp_path / "file" / "x.ckpt", checkpoint_every=0.0, key="k")
    (tmp_path / "file").write_text("a file")
    assert_outcomes_equal(run(training, 150), run(training, 150, callbacks=callbacks))


def test_the_global_random_state_is_not_changed() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run(TRAININGS["sgd"].model_copy(update={"epochs": 1}), 20)
    torch.testing.assert_close(torch.rand(3), expected)
