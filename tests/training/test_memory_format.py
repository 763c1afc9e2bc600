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
from flexhpc.training import Callbacks, Outcome, train
from flexhpc.training import loop as loop_module
from tests.sections import FAMILIES, OPTIMIZERS, choices, optimizer, small_network
from tests.training.helpers import probe_data, run

NETWORKS = [
    small_network(name, width=8, norm=norm)
    for name, cls in FAMILIES.items()
    if cls.any_memory_format
    for norm in choices(cls, "norm")
]
TRAININGS = [  # at a fifth of the default rate, rounding errors hardly grow
    optimizer(name, lr=cls.model_fields["lr"].default / 5, epochs=4)
    for name, cls in OPTIMIZERS.items()
    if cls.elementwise
]
ADAM = optimizer("adam", epochs=4)
RESNET = small_network("resnet", width=4)


def is_channels_last(training: Training, model: Network | nn.Module) -> bool:
    """Return whether the kernels of a network are in channels_last at the end of its training."""
    results: set[bool] = set()

    def on_train_end(network: nn.Module) -> dict[str, float]:
        kernels = [p for p in network.parameters() if p.dim() == 4]
        for kernel in kernels:
            expected = torch.empty(kernel.shape, memory_format=torch.channels_last).stride()
            results.add(kernel.stride() == expected)
        return {}

    make = partial(build, model, (1, 8, 8), 10) if isinstance(model, Network) else lambda: model
    train(training, make, probe_data(60), Callbacks(on_train_end=on_train_end))
    (result,) = results
    return result


@pytest.mark.parametrize("model", NETWORKS, ids=lambda m: f"{m.family}-{getattr(m, 'norm', '')}")
def test_formats_differ_by_rounding_only(model: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    for training in TRAININGS:
        assert is_channels_last(training, model)
        outcome = run(training, 60, model=model)
        with monkeypatch.context() as context:
            context.setattr(loop_module, "use_channels_last", lambda model, device: None)
            assert not is_channels_last(training, model)
            assert_curves_close(outcome, run(training, 60, model=model))


def assert_curves_close(first: Outcome, second: Outcome) -> None:
    """Assert that two loss curves differ by much less than they change.

    Rounding depends on the processor, and grows where Adam divides by small second moments.
    """
    difference = np.abs(first.loss_curve - second.loss_curve).max()
    assert difference < 0.02 * np.ptp(first.loss_curve)


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
    assert not is_channels_last(training, model)
