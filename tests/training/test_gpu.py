"""Trainings on a GPU: the math of the CPU, the same bits each time, and from a checkpoint.

On a machine without one these are left out; ``make gpu-check`` runs them where there is one.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from flexhpc.data import load_samples
from flexhpc.errors import Interrupted
from flexhpc.measuring import probe
from flexhpc.measuring.probe import Wanted, choose_device, run_training
from flexhpc.models import build
from flexhpc.spec.sections.model import Cnn, Mlp, Model, Resnet
from flexhpc.spec.sections.training import Adam, Gd, Sgd, Training
from flexhpc.training import Group, Hooks, Outcome, ProbeData, loop, train
from flexhpc.training.recorded import Found, Recorded, Recording, recorder
from tests.measuring.test_resident import ADAM, CNN, MLP, point_of
from tests.training.helpers import SMALL, probe_data, same

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is visible to torch"),
]
MODELS: dict[str, Model] = {
    "mlp": SMALL,
    "normed mlp": Mlp(family="mlp", width=16, depth=2, norm="batch"),
    "cnn": Cnn(family="cnn", width=4, depth=2),
    "resnet": Resnet(family="resnet", width=4, depth=2),
}
SHORT = {"batch_size": 32, "epochs": 15}
TRAININGS: dict[str, Training] = {
    "adam": Adam(optimizer="adam", lr=1e-2, **SHORT),
    "looks": Adam(optimizer="adam", lr=1e-2, curves="looks", **SHORT),
    "sgd": Sgd(optimizer="sgd", lr=0.05, **SHORT),
    "gd": Gd(optimizer="gd", lr=0.2, momentum=0.5, epochs=15),
    "shards": Adam(optimizer="adam", lr=1e-2, shards=2, **SHORT),
}


def trained(
    training: Training, model: Model, device: torch.device, hooks: Hooks | None = None
) -> Outcome:
    data = probe_data(150)
    moved = ProbeData(
        inputs=data.inputs.to(device), labels=data.labels.to(device), init_seed=data.init_seed,
        order_seed=data.order_seed,
    )  # fmt: skip
    make = partial(build, model, (1, 8, 8), 10)
    return train(training, make, moved, hooks or Hooks(), Group(device))


@pytest.fixture(scope="module")
def gpu() -> torch.device:
    return choose_device(1)


NORMED = ("normed mlp", "resnet")
"""With these shards are refused."""


@pytest.mark.parametrize(
    ("name", "model"),
    [(t, m) for t in TRAININGS for m in MODELS if t != "shards" or m not in NORMED],
)
def test_the_math_is_that_of_the_cpu(name: str, model: str, gpu: torch.device) -> None:
    """In float64: weights are drawn on the CPU, so both start from the same ones."""
    training = TRAININGS[name].model_copy(update={"precision": "fp64"})
    one, other = (trained(training, MODELS[model], d) for d in (torch.device("cpu"), gpu))
    assert (one.verdict, one.epochs, one.n_errors) == (other.verdict, other.epochs, other.n_errors)
    np.testing.assert_array_equal(one.fitted, other.fitted)
    np.testing.assert_allclose(one.loss_curve, other.loss_curve, rtol=1e-5)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", ["adam", "looks", "gd"])
def test_the_bits_are_the_same_each_time_and_from_a_checkpoint(
    name: str, model: str, gpu: torch.device, tmp_path: Path
) -> None:
    training = TRAININGS[name]
    straight = trained(training, MODELS[model], gpu)
    same(straight, trained(training, MODELS[model], gpu))
    count = iter(range(1, 10**6))
    path = tmp_path / "probe.ckpt"
    hooks = Hooks(stopping=lambda: next(count) == 7, checkpoint=path, key="k")
    with pytest.raises(Interrupted):
        trained(training, MODELS[model], gpu, hooks)
    same(straight, trained(training, MODELS[model], gpu, Hooks(checkpoint=path, key="k")))


@pytest.mark.parametrize("model", [MLP, CNN])
def test_bytes_train_to_the_bits_of_floats(
    model: str, gpu: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = point_of(tmp_path, model, "", ADAM)
    found = []
    for most in (2**30, 0):
        monkeypatch.setattr(probe, "_MOST_FLOATS", most)
        samples, wanted = load_samples(point.data, point.seed), Wanted(n=150, repeat=0)
        found.append(run_training(point, samples, wanted, None, Group(gpu), Hooks())[0])
    same(*found)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", ["adam", "looks", "sgd", "gd"])
def test_updates_are_recorded_and_leave_the_same_bits(
    name: str, model: str, gpu: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    longer = TRAININGS[name].model_copy(update={"epochs": 90})
    recordings: list[bool] = []
    tried = Recorded._tried

    def seen(self: Recorded, *given: Any) -> Recording | None:
        found = tried(self, *given)
        recordings.append(found is not None)
        return found

    monkeypatch.setattr(Recorded, "_tried", seen)
    replayed = trained(longer, MODELS[model], gpu)
    assert recordings
    assert all(recordings)
    monkeypatch.setattr(loop, "recorder", lambda device: None)
    same(replayed, trained(longer, MODELS[model], gpu))


def test_what_cannot_be_recorded_changes_nothing(gpu: torch.device) -> None:
    weight = torch.zeros(3, device=gpu)

    def update(ids: Tensor) -> Found:
        weight.add_(float(ids.sum().item()))  # waits for the card
        return [(weight.clone(), ids, ids)]

    stream = torch.cuda.current_stream()
    made = Recorded(update, lambda: [weight], recorder(gpu))
    for _ in range(100):
        made(torch.arange(3, device=gpu))
    assert weight.tolist() == [300.0] * 3
    assert torch.cuda.current_stream() == stream
    assert torch.rand(3, device=gpu).isfinite().all(), "nothing is recorded any more"
