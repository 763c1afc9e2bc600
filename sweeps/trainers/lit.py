"""Train a Lightning module by Lightning's Trainer."""

from __future__ import annotations

from typing import Any

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset


class Classifier(lightning.LightningModule):
    """A network with cross-entropy and Adam."""

    def __init__(self, network: nn.Module, lr: float) -> None:
        super().__init__()
        self.network, self.lr = network, lr

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Return the loss of a batch."""
        inputs, labels = batch
        return functional.cross_entropy(self.network(inputs), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam over all parameters."""
        return torch.optim.Adam(self.parameters(), lr=self.lr)


def fit(
    inputs: NDArray[np.float32], labels: NDArray[np.int64], model: nn.Module, budget: Any,
    lr: float = 1e-2,
) -> dict[str, Any]:  # fmt: skip
    """Train the network of the spec's ``model`` for the budget's epochs."""
    data = TensorDataset(torch.from_numpy(inputs), torch.from_numpy(labels))
    trainer = lightning.Trainer(
        max_epochs=budget.epochs, accelerator="auto", devices=1, logger=False, barebones=True
    )
    classifier = Classifier(model, lr)
    trainer.fit(classifier, DataLoader(data, batch_size=64, shuffle=True))
    with torch.no_grad():
        scores = model.eval()(data.tensors[0])
    loss = functional.cross_entropy(scores, data.tensors[1])
    return {"scores": scores, "loss": loss, "epochs": budget.epochs, "steps": trainer.global_step}
