"""The exact number of a network's parameters, counted without weights."""

from __future__ import annotations

import torch
from torch import nn

from flexhpc.errors import PointError
from flexhpc.models.build import build
from flexhpc.models.families import Shape
from flexhpc.spec.sections import Model


def count_parameters(model: Model, shape: Shape, classes: int) -> int:
    """Return the exact number of trainable parameters, without allocating them.

    The network is built and run once on torch's meta device, so that a shape which it cannot take
    is found here and not in the middle of a sweep.

    Raises:
        PointError: the network cannot take samples of this shape, or be scaled as asked.
    """
    network = _on_meta(model, shape, classes)
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def _on_meta(model: Model, shape: Shape, classes: int) -> nn.Module:
    """Build the network, and see that it runs."""
    with torch.device("meta"):
        try:
            network = build(model, shape, classes).eval()
            logits = network(torch.empty(2, *shape))
        except PointError:
            raise
        except Exception as error:
            what = " ".join(str(error).split())
            raise PointError(f"model: {model.family} cannot take {shape} samples: {what}") from None
    if logits.shape != (2, classes):
        raise PointError(
            f"model: {model.family} gives outputs of shape {tuple(logits.shape[1:])}, "
            f"not {classes} logits per sample"
        )
    return network
