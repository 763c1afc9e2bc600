"""Networks of the families at an explicit size, without scaling or reparameterization."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from flexhpc.config.sections.model import (
    Cnn,
    Efficientnet,
    Gpt,
    Linear,
    Mixer,
    Mlp,
    Network,
    Resnet,
    Sized,
    Timm,
    Vit,
)
from flexhpc.config.variants import implementation
from flexhpc.errors import PointError
from flexhpc.models import plain, timm_models
from flexhpc.models.initialise import BASE_WIDTH, draw_all, drawing, layers_of, scale_rates

Shape = tuple[int, ...]
"""Shape of one sample: (channels, height, width), or (features,)."""


def network(model: Network, shape: Shape, classes: int) -> nn.Module:
    """Build an untrained network, initialised from torch's global random state.

    The network has the attribute ``flexhpc_any_layout`` if its family works in any memory format.

    Args:
        model: a family with an explicit width; scaling and reparameterization are ignored.
        shape: shape of one sample.
        classes: number of outputs.

    Raises:
        PointError: the family does not accept samples of this shape.
    """
    if len(shape) != 3 and model.images_only:
        raise PointError(
            f"model.family: {model.family} takes images, but a sample is {shape}; use linear or mlp"
        )
    built: nn.Module = implementation(model)(model, shape, classes)
    if isinstance(model, Sized):
        if not model.draws:
            draw_all(built, drawing(model))
        elif model.init == "mup" and model.width is not None:
            scale_rates(layers_of(built), model.width / (model.base_width or BASE_WIDTH))
    if model.any_layout:
        vars(built)["flexhpc_any_layout"] = True
    return built


def linear(model: Linear, shape: Shape, classes: int) -> nn.Module:
    """Build a single linear layer."""
    return plain.linear(math.prod(shape), classes, bias=model.bias, draw=drawing(model))


def mlp(model: Mlp, shape: Shape, classes: int) -> nn.Module:
    """Build a multilayer perceptron with hidden layers of equal width."""
    return plain.mlp(
        math.prod(shape), classes, **_sizes(model, "bias", "norm"), draw=drawing(model)
    )


def cnn(model: Cnn, shape: Shape, classes: int) -> nn.Module:
    """Build a network of strided convolutions."""
    sizes = _sizes(model, "kernel", "bias", "norm")
    return plain.cnn(shape[0], classes, **sizes, draw=drawing(model))


def vit(model: Vit, shape: Shape, classes: int) -> nn.Module:
    """Build timm's VisionTransformer."""
    return timm_models.vit(shape, classes, **_sizes(model, "heads", "patch", "mlp_ratio"))


def gpt(model: Gpt, shape: Shape, classes: int) -> nn.Module:
    """Build a decoder-only transformer of timm's blocks."""
    return timm_models.Gpt(shape, classes, **_sizes(model, "heads", "mlp_ratio"))


def mixer(model: Mixer, shape: Shape, classes: int) -> nn.Module:
    """Build timm's MLP-Mixer."""
    return timm_models.mixer(shape, classes, **_sizes(model, "patch"))


def resnet(model: Resnet, shape: Shape, classes: int) -> nn.Module:
    """Build timm's ResNet."""
    return timm_models.resnet(shape, classes, **_sizes(model, "norm"))


def efficientnet(model: Efficientnet, shape: Shape, classes: int) -> nn.Module:
    """Build timm's EfficientNet."""
    return timm_models.efficientnet(shape, classes, **_sizes(model))


def by_name(model: Timm, shape: Shape, classes: int) -> nn.Module:
    """Build any timm model by its name."""
    name = model.family.removeprefix("timm:")
    return timm_models.by_name(name, shape, classes, model.kwargs)


def _sizes(model: Sized, *more: str) -> dict[str, Any]:
    return model.model_dump(include={"width", "depth", "activation", *more})
