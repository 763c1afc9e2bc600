"""The memory format of images and kernels affects rounding only."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from flexhpc.config.sections.model import LowRank, Network
from flexhpc.config.sections.training import Training
from flexhpc.models import build
from flexhpc.training import Outcome, train
from flexhpc.training import loop as loop_module
from tests.sections import FAMILIES, OPTIMIZERS, choices, optimizer, small_network
from tests.training.helpers import DIGIT, collect_models, probe_data

NETWORKS = [
    small_network(name, width=8, norm=norm)
    for name, cls in FAMILIES.items()
    if cls.any_memory_format
    for norm in choices(cls, "norm")
]
TRAININGS = [  # at a fifth of the default rate, rounding errors hardly grow
    optimizer(name, lr=optimizer(name).lr / 5, epochs=4)
    for name, cls in OPTIMIZERS.items()
    if cls.elementwise
]
ADAM = optimizer("adam", epochs=4)
RESNET = small_network("resnet", width=4)


def train_network(training: Training, model: Network | nn.Module) -> tuple[Outcome, bool]:
    """Return the outcome, and whether the trained kernels are in channels_last."""
    networks: list[nn.Module] = []
    make = partial(build, model, DIGIT, 10) if isinstance(model, Network) else lambda: model
    outcome = train(training, make, probe_data(60), collect_models(networks))
    (is_channels_last,) = {
        kernel.stride() == torch.empty(kernel.shape, memory_format=torch.channels_last).stride()
        for kernel in networks[0].parameters()
        if kernel.dim() == 4
    }
    return outcome, is_channels_last


@pytest.mark.parametrize("model", NETWORKS, ids=lambda m: f"{m.family}-{getattr(m, 'norm', '')}")
def test_formats_differ_by_rounding_only(model: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss curves differ by much less than they change.

    Rounding depends on the processor, and grows where Adam divides by small second moments.
    """
    for training in TRAININGS:
        outcome, is_channels_last = train_network(training, model)
        assert is_channels_last
        with monkeypatch.context() as context:
            context.setattr(loop_module, "use_channels_last", lambda model, device: None)
            unconverted, is_channels_last = train_network(training, model)
        assert not is_channels_last
        difference = np.abs(outcome.loss_curve - unconverted.loss_curve).max()
        assert difference < 0.02 * np.ptp(outcome.loss_curve)


class ViewFlattening(nn.Module):
    """Flattens images with ``view``, as many networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(256, 10)
        self.second = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.second(self.kernels(images).relu())
        logits: torch.Tensor = self.head(features.view(len(features), -1))
        return logits


@pytest.mark.parametrize(
    ("training", "model"),
    [
        (ADAM, ViewFlattening()),
        (ADAM, RESNET.model_copy(update={"low_rank": LowRank(rank=1)})),
        (ADAM.model_copy(update={"precision": "fp64"}), RESNET),
        (optimizer("soap", epochs=4), RESNET),
        (optimizer("muon", epochs=4), RESNET),
    ],
)
def test_unsupported_cases_are_not_converted(
    training: Training, model: Network | nn.Module
) -> None:
    _, is_channels_last = train_network(training, model)
    assert not is_channels_last
