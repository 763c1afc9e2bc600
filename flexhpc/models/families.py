"""The networks of the families at one given size: no scaling, no reparameterization."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from flexhpc.errors import PointError
from flexhpc.models.initialise import BASE_WIDTH, draw_all, drawing, layers_of, scale_rates
from flexhpc.models.plain import Cnn, linear, mlp
from flexhpc.models.timm_models import by_name, efficientnet, mixer, resnet, vit
from flexhpc.spec import sections
from flexhpc.spec.sections import Model

Shape = tuple[int, ...]
"""Of one sample: (channels, height, width), or (features,)."""


def network(model: Model, shape: Shape, classes: int) -> nn.Module:
    """Build an untrained network, initialised from torch's global random state.

    Args:
        model: a family with an explicit width; its scaling and reparameterization are left aside.
        shape: of one sample.
        classes: number of outputs.

    Raises:
        PointError: the family cannot take samples of this shape.
    """
    if len(shape) != 3 and not isinstance(model, sections.Linear | sections.Mlp):
        raise PointError(
            f"model.family: {model.family} takes images, but a sample is {shape}; use linear or mlp"
        )
    built = _BUILDERS[type(model)](model, shape, classes)
    if isinstance(model, sections.Sized):
        if not isinstance(model, sections.Mlp | sections.Cnn):
            draw_all(built, drawing(model))
        elif model.init == "mup" and model.width is not None:
            scale_rates(layers_of(built), model.width / (model.base_width or BASE_WIDTH))
    return built


def _linear(model: sections.Linear, shape: Shape, classes: int) -> nn.Module:
    return linear(math.prod(shape), classes, bias=model.bias, draw=drawing(model))


def _mlp(model: sections.Mlp, shape: Shape, classes: int) -> nn.Module:
    return mlp(math.prod(shape), classes, **_sizes(model, "bias", "norm"), draw=drawing(model))


def _cnn(model: sections.Cnn, shape: Shape, classes: int) -> nn.Module:
    return Cnn(shape[0], classes, **_sizes(model, "kernel", "bias", "norm"), draw=drawing(model))


def _vit(model: sections.Vit, shape: Shape, classes: int) -> nn.Module:
    return vit(shape, classes, **_sizes(model, "heads", "patch", "mlp_ratio"))


def _mixer(model: sections.Mixer, shape: Shape, classes: int) -> nn.Module:
    return mixer(shape, classes, **_sizes(model, "patch"))


def _resnet(model: sections.Resnet, shape: Shape, classes: int) -> nn.Module:
    return resnet(shape, classes, **_sizes(model, "norm"))


def _efficientnet(model: sections.Efficientnet, shape: Shape, classes: int) -> nn.Module:
    return efficientnet(shape, classes, **_sizes(model))


def _by_name(model: sections.Timm, shape: Shape, classes: int) -> nn.Module:
    return by_name(model.family.removeprefix("timm:"), shape, classes, model.kwargs)


def _sizes(model: sections.Sized, *more: str) -> dict[str, Any]:
    return model.model_dump(include={"width", "depth", "activation", *more})


_BUILDERS: Mapping[type[Model], Callable[[Any, Shape, int], nn.Module]] = {
    sections.Linear: _linear,
    sections.Mlp: _mlp,
    sections.Cnn: _cnn,
    sections.Vit: _vit,
    sections.Mixer: _mixer,
    sections.Resnet: _resnet,
    sections.Efficientnet: _efficientnet,
    sections.Timm: _by_name,
}
