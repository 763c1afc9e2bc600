"""Optimizers and learning-rate schedules, from torch.optim."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from flexhpc.spec import sections
from flexhpc.spec.sections import Training


def make_optimizer(training: Training, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Build the optimizer; its rate is set at every step by :func:`rate`."""
    decay = training.weight_decay
    if isinstance(training, sections.Sgd | sections.Gd):
        return torch.optim.SGD(
            parameters, lr=training.lr, momentum=training.momentum, weight_decay=decay, fused=True
        )
    if isinstance(training, sections.AdamW):
        return torch.optim.AdamW(parameters, lr=training.lr, weight_decay=decay, fused=True)
    if isinstance(training, sections.Adam):
        return torch.optim.Adam(parameters, lr=training.lr, weight_decay=decay, fused=True)
    raise TypeError(f"no such optimizer: {training.optimizer}")


def rate(training: Training, step: int, total: int) -> float:
    """Return the learning rate of update number ``step`` (from 0) of ``total``."""
    peak: float = training.lr
    if training.schedule == "constant":
        return peak
    return peak * 0.5 * (1 + math.cos(math.pi * step / total))
