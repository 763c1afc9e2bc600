"""The memory format of images and kernels affects rounding only."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from flexhpc.config.sections.model import Cnn, Efficientnet, LowRank, Network, Resnet
from flexhpc.config.sections.training import Adam, AdamW, Gd, Muon, Sgd, Soap, Training
from flexhpc.config.variants import variants
from flexhpc.models import build
from flexhpc.training import Callbacks, Outcome, train
from flexhpc.training import loop as loop_module
from tests.training.helpers import probe_data, run

RESNET = Resnet(family="resnet", width=4, depth=2)
NETWORKS: list[Network] = [
    RESNET, RESNET.model_copy(update={"norm": "layer"}), RESNET.model_copy(update={"norm": "none"}),
    Cnn(family="cnn", width=4, depth=2), Cnn(family="cnn", width=4, depth=2, norm="batch"),
    Cnn(family="cnn", width=4, depth=2, norm="layer"),
    Efficientnet(family="efficientnet", width=8, depth=2),
]  # fmt: skip
SHORT: dict[str, Any] = {"batch_size": 32, "epochs": 4}
TRAININGS: list[Training] = [
    Adam(optimizer="adam", lr=1e-3, **SHORT), AdamW(optimizer="adamw", lr=1e-3, **SHORT),
    Sgd(optimizer="sgd", lr=1e-2, **SHORT), Gd(optimizer="gd", lr=1e-2, momentum=0.9, epochs=4),
]  # fmt: skip


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


def test_all_families_with_any_layout_are_tested() -> None:
    families = {kind for kind in variants("model").values() if getattr(kind, "any_layout", False)}
    assert families == {type(network) for network in NETWORKS}


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
        (TRAININGS[0], ViewFlattening()),
        (TRAININGS[0], RESNET.model_copy(update={"low_rank": LowRank(rank=1)})),
        (TRAININGS[0].model_copy(update={"precision": "fp64"}), RESNET),
        (Soap(optimizer="soap", **SHORT), RESNET),
        (Muon(optimizer="muon", **SHORT), RESNET),
    ],
)
def test_unsupported_cases_are_not_converted(
    training: Training, model: Network | nn.Module
) -> None:
    assert not is_channels_last(training, model)
