"""Train a network by Hugging Face's Trainer."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments


class Samples(Dataset[dict[str, Tensor]]):
    """Samples in the format of the Trainer."""

    def __init__(self, inputs: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
        self.inputs, self.labels = torch.from_numpy(inputs), torch.from_numpy(labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {"inputs": self.inputs[i], "labels": self.labels[i]}


class WithLoss(nn.Module):
    """A network that returns its loss, as the Trainer requires."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return loss and logits."""
        logits = self.network(inputs)
        return {"loss": functional.cross_entropy(logits, labels), "logits": logits}


def fit(
    inputs: NDArray[np.float32], labels: NDArray[np.int64], model: nn.Module, budget: Any,
    seed: int, **settings: Any,
) -> dict[str, Any]:  # fmt: skip
    """Train the network of the spec's ``model``; keyword arguments are TrainingArguments."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, num_train_epochs=budget.epochs, seed=seed, report_to=[],
            save_strategy="no", logging_strategy="no", disable_tqdm=True,
            per_device_train_batch_size=64, **settings,
        )  # fmt: skip
        samples = Samples(inputs, labels)
        trainer = Trainer(model=WithLoss(model), args=arguments, train_dataset=samples)
        done = trainer.train()
    with torch.no_grad():
        scores = model.eval()(samples.inputs.to(next(model.parameters()).device))
    return {"scores": scores, "epochs": budget.epochs, "steps": done.global_step}
