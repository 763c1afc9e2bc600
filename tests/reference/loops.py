"""A plain training loop: does a network fit n samples perfectly, within its budget?

Nothing here is imported from flexhpc.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import CosineAnnealingLR

from tests.reference.data import Samples
from tests.reference.networks import network
from tests.reference.optimizers import optimizer

Words = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a training ended.

    Attributes:
        misses: samples of the subset that the network gets wrong, in eval mode.
        updates: how many it took.
        epochs: passes begun.
    """

    misses: int
    updates: int
    epochs: int

    @property
    def fitted(self) -> bool:
        """Whether all samples are right."""
        return self.misses == 0


def train(model: Words, training: Words, samples: Samples, n: int, seed: int) -> Ended:
    """Train a fresh network on a fresh random subset of ``n`` samples.

    Training ends with the first epoch after which all samples are right, or with the budget.
    """
    torch.manual_seed(seed)
    subset = torch.randperm(len(samples.labels))[:n]
    inputs, labels = samples.inputs[subset], samples.labels[subset]
    net = network(model, tuple(inputs.shape[1:]), samples.classes)
    sizes = batch_sizes(n, n if training["optimizer"] == "gd" else training["batch_size"])
    budget = training["steps"] if "steps" in training else training["epochs"] * len(sizes)
    update = optimizer(training, net.parameters())
    cosine = training.get("schedule") == "cosine"
    schedule = CosineAnnealingLR(update, T_max=budget) if cosine else None
    updates = epochs = 0
    misses = n
    while misses and updates < budget:
        net.train()
        epochs += 1
        for batch in torch.randperm(n).split(sizes)[: budget - updates]:
            loss = functional.cross_entropy(net(inputs[batch]), labels[batch])
            update.zero_grad()
            loss.backward()
            update.step()
            if schedule is not None:
                schedule.step()
            updates += 1
        if not math.isfinite(loss.item()):
            break
        misses = missed(net, inputs, labels)
    return Ended(misses=misses, updates=updates, epochs=epochs)


def batch_sizes(n: int, most: int) -> list[int]:
    """Return the sizes of the fewest batches of at most ``most``, equal to within one sample."""
    count = math.ceil(n / most)
    return [n // count + (batch < n % count) for batch in range(count)]


@torch.no_grad()
def missed(net: nn.Module, inputs: Tensor, labels: Tensor) -> int:
    """Return how many samples the network gets wrong in eval mode."""
    net.eval()
    return int((net(inputs).argmax(1) != labels).sum())
