"""Where in memory the channels of images lie changes rounding, and nothing else."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from flexhpc.config.sections.model import Cnn, Efficientnet, LowRank, Network, Resnet
from flexhpc.config.sections.training import Adam, AdamW, Gd, Muon, Sgd, Soap, Training
from flexhpc.config.variants import variants
from flexhpc.models import build
from flexhpc.training import Callbacks, Outcome, train
from flexhpc.training import loop as loop_module
from flexhpc.training.memory_format import match_memory_format
from flexhpc.training.optimizers import make_optimizer, update_weights
from tests.training.helpers import probe_data, run, same
from tests.training.test_loop import resumed

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


def laid_out(training: Training, model: Network | nn.Module) -> bool:
    """Return whether a network's kernels have their channels beside each other at its end."""
    seen: list[bool] = []

    def look(network: nn.Module) -> dict[str, float]:
        for kernel in (p for p in network.parameters() if p.dim() == 4):
            beside = torch.empty(kernel.shape, memory_format=torch.channels_last)
            seen.append(kernel.stride() == beside.stride())
        return {}

    made = partial(build, model, (1, 8, 8), 10) if isinstance(model, Network) else lambda: model
    train(training, made, probe_data(60), Callbacks(on_train_end=look))
    assert len(set(seen)) == 1
    return seen[0]


def test_every_family_that_says_so_is_among_these() -> None:
    said = {kind for kind in variants("model").values() if getattr(kind, "any_layout", False)}
    assert said == {type(network) for network in NETWORKS}


@pytest.mark.parametrize("model", NETWORKS, ids=lambda m: f"{m.family}-{getattr(m, 'norm', '')}")
def test_a_training_is_the_same_but_for_rounding(
    model: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    for training in TRAININGS:
        assert laid_out(training, model)
        found = run(training, 60, model=model)
        with monkeypatch.context() as context:
            context.setattr(loop_module, "use_channels_last", lambda model, device: None)
            assert not laid_out(training, model)
            close(found, run(training, 60, model=model))


def close(one: Outcome, other: Outcome) -> None:
    """Check that two curves differ by much less than they change.

    Rounding depends on the processor, and grows where Adam divides by small second moments.
    """
    difference = np.abs(one.loss_curve - other.loss_curve).max()
    assert difference < 0.02 * np.ptp(one.loss_curve)


def test_a_tensor_takes_the_order_of_another() -> None:
    given = torch.arange(2.0 * 3 * 4 * 5).view(2, 3, 4, 5)
    like = torch.empty(2, 3, 4, 5, memory_format=torch.channels_last)
    found = match_memory_format(given, like)
    assert torch.equal(found, given)
    assert found.stride() == like.stride()
    assert match_memory_format(found, like) is found
    one = torch.empty(2, 1, 4, 5)
    assert match_memory_format(one, one.clone(memory_format=torch.channels_last)) is one, (
        "the same memory"
    )


@pytest.mark.parametrize("stops", [[1], [3, 2]])
def test_an_interrupted_probe_goes_on_bitwise(stops: list[int], tmp_path: Any) -> None:
    again = resumed(TRAININGS[0], stops, tmp_path / "probe.ckpt", RESNET)
    same(run(TRAININGS[0], 60, model=RESNET), again)


class Viewing(nn.Module):
    """Flattens its images by a view, as many networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(256, 10)
        self.more = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        seen = self.more(self.kernels(images).relu())
        logits: torch.Tensor = self.head(seen.view(len(seen), -1))
        return logits


@pytest.mark.parametrize(
    ("training", "model"),
    [
        (TRAININGS[0], Viewing()),
        (TRAININGS[0], RESNET.model_copy(update={"low_rank": LowRank(rank=1)})),
        (TRAININGS[0].model_copy(update={"precision": "fp64"}), RESNET),
        (Soap(optimizer="soap", **SHORT), RESNET),
        (Muon(optimizer="muon", **SHORT), RESNET),
    ],
)
def test_others_stay_as_they_are(training: Training, model: Network | nn.Module) -> None:
    assert not laid_out(training, model)


@pytest.mark.parametrize("training", TRAININGS, ids=lambda t: t.optimizer)
def test_a_state_that_was_saved_in_the_other_order_is_taken(training: Training) -> None:
    """As checkpoints have that were written before images lay so."""
    torch.manual_seed(0)
    images, labels = torch.randn(32, 1, 8, 8), torch.randint(10, (32,))

    def steps(network: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> torch.Tensor:
        for _ in range(count):
            optimizer.zero_grad()
            functional.cross_entropy(network(images), labels).backward()
            update_weights(optimizer)
        return torch.cat([p.detach().flatten() for p in network.parameters()])

    before = build(RESNET, (1, 8, 8), 10)
    optimizer = make_optimizer(training, before.parameters())
    steps(before, optimizer, 3)
    after = build(RESNET, (1, 8, 8), 10).to(memory_format=torch.channels_last)
    after.load_state_dict(before.state_dict())
    again = make_optimizer(training, after.parameters())
    again.load_state_dict(deepcopy(optimizer.state_dict()))
    expected = steps(before, optimizer, 3)
    torch.testing.assert_close(steps(after, again, 3), expected, rtol=0, atol=1e-5)
