"""From the ``model`` section of a point to a network, and its exact number of parameters."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from flexhpc.errors import PointError
from flexhpc.models.plain import Cnn, linear, mlp
from flexhpc.models.timm_models import by_name, resnet, vit
from flexhpc.spec import sections
from flexhpc.spec.sections import Model


def build(model: Model, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Build an untrained network, initialised from torch's global random state.

    Args:
        model: the family and its sizes.
        shape: of one sample: (channels, height, width), or (features,).
        classes: number of outputs.

    Raises:
        PointError: the network cannot take samples of this shape.
    """
    if isinstance(model, sections.Linear):
        return linear(math.prod(shape), classes, bias=model.bias)
    if isinstance(model, sections.Mlp):
        return mlp(
            math.prod(shape),
            classes,
            **_shape_of(model),
        )
    if len(shape) != 3:
        raise PointError(f"model.family: {model.family} takes images, but a sample is {shape}")
    if isinstance(model, sections.Cnn):
        return Cnn(
            shape[0],
            classes,
            **_shape_of(model),
        )
    if isinstance(model, sections.Vit):
        return vit(
            shape,
            classes,
            width=model.width or 0,
            depth=model.depth,
            heads=model.heads,
            patch=model.patch,
            activation=model.activation,
        )
    if isinstance(model, sections.Resnet):
        return resnet(
            shape, classes, width=model.width or 0, depth=model.depth, activation=model.activation
        )
    if isinstance(model, sections.Timm):
        return by_name(model.family.removeprefix("timm:"), shape, classes, model.kwargs)
    raise TypeError(f"no such family: {model.family}")


def _shape_of(model: sections.Mlp | sections.Cnn) -> dict[str, Any]:
    return model.model_dump(include={"width", "depth", "activation", "bias", "norm"})


def count_parameters(model: Model, shape: tuple[int, ...], classes: int) -> int:
    """Return the exact number of trainable parameters, without allocating them.

    The network is built and run once on torch's meta device, so that a shape which it cannot take
    is found here and not in the middle of a sweep.

    Raises:
        PointError: the network cannot take samples of this shape.
    """
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
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
