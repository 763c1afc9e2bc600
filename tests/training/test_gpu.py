"""Trainings on a GPU agree with those on the CPU; ``make gpu-check`` runs these tests."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from flexhpc.config.sections.model import Cnn, Mlp, Model, Resnet
from flexhpc.config.sections.training import Adam, Gd, Sgd, Training
from flexhpc.measuring.probe import choose_device
from flexhpc.models import build
from flexhpc.training import Callbacks, Group, Outcome, ProbeData, train
from tests.training.helpers import SMALL, probe_data

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
    "evaluated": Adam(optimizer="adam", lr=1e-2, curves="evaluation", **SHORT),
    "sgd": Sgd(optimizer="sgd", lr=0.05, **SHORT),
    "gd": Gd(optimizer="gd", lr=0.2, momentum=0.5, epochs=15),
    "shards": Adam(optimizer="adam", lr=1e-2, shards=2, **SHORT),
}


def train_on(
    training: Training, model: Model, device: torch.device, callbacks: Callbacks | None = None
) -> Outcome:
    data = probe_data(150)
    moved = ProbeData(
        inputs=data.inputs.to(device), labels=data.labels.to(device), init_seed=data.init_seed,
        order_seed=data.order_seed,
    )  # fmt: skip
    make = partial(build, model, (1, 8, 8), 10)
    return train(training, make, moved, callbacks or Callbacks(), Group(device))


@pytest.fixture(scope="module")
def gpu() -> torch.device:
    return choose_device(1)


NORMED = ("normed mlp", "resnet")
"""Shards are rejected with these."""


@pytest.mark.parametrize(
    ("name", "model"),
    [(t, m) for t in TRAININGS for m in MODELS if t != "shards" or m not in NORMED],
)
def test_gpu_and_cpu_agree(name: str, model: str, gpu: torch.device) -> None:
    """In float64; the initial weights are drawn on the CPU."""
    training = TRAININGS[name].model_copy(update={"precision": "fp64"})
    cpu, on_gpu = (train_on(training, MODELS[model], d) for d in (torch.device("cpu"), gpu))
    assert (cpu.verdict, cpu.epochs, cpu.n_errors) == (
        on_gpu.verdict,
        on_gpu.epochs,
        on_gpu.n_errors,
    )
    np.testing.assert_array_equal(cpu.fitted, on_gpu.fitted)
    np.testing.assert_allclose(cpu.loss_curve, on_gpu.loss_curve, rtol=1e-5)
