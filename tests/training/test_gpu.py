"""Training runs on a GPU agree with those on the CPU; ``make gpu-check`` runs these tests."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flexhpc.config.sections.model import Cnn, Mlp, Model, Resnet
from flexhpc.config.sections.training import Adam, Gd, Sgd, Training
from flexhpc.measuring.probe import choose_device
from tests.training.helpers import CPU, SMALL, run

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
SHORT = {"batch_size": 32, "epochs": 15, "precision": "fp64"}
TRAININGS: dict[str, Training] = {
    "adam": Adam(optimizer="adam", lr=1e-2, **SHORT),
    "evaluated": Adam(optimizer="adam", lr=1e-2, curves="evaluation", **SHORT),
    "sgd": Sgd(optimizer="sgd", lr=0.05, **SHORT),
    "gd": Gd(optimizer="gd", lr=0.2, momentum=0.5, epochs=15, precision="fp64"),
    "shards": Adam(optimizer="adam", lr=1e-2, shards=2, **SHORT),
}
NORMED = ("normed mlp", "resnet")
"""Shards are rejected with these."""


@pytest.mark.parametrize(
    ("name", "model"),
    [(t, m) for t in TRAININGS for m in MODELS if t != "shards" or m not in NORMED],
)
def test_gpu_and_cpu_agree(name: str, model: str) -> None:
    """In float64; the initial weights are drawn on the CPU."""
    cpu, gpu = (
        run(TRAININGS[name], 150, model=MODELS[model], device=device)
        for device in (CPU, choose_device(1))
    )
    for key in ("verdict", "epochs", "n_errors"):
        assert getattr(cpu, key) == getattr(gpu, key), key
    np.testing.assert_array_equal(cpu.fitted, gpu.fitted)
    np.testing.assert_allclose(cpu.loss_curve, gpu.loss_curve, rtol=1e-5)
