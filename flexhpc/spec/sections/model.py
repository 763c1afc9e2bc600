"""The ``model`` section: what is trained."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from flexhpc.spec.sections.base import Count, Section, positive

_DEEPEST = 10
Activation = Literal["relu", "leaky_relu", "tanh", "identity", "gelu"]


class Model(Section):
    """What is trained."""

    family: str
    """Kind of network."""


class Linear(Model):
    """One linear layer from the flattened input to the classes."""

    family: Literal["linear"]
    bias: bool = True
    """Whether the layer has a bias."""


class _Plain(Model):
    width: Count
    """Units of every hidden layer (mlp), or channels of the first layer (cnn)."""
    activation: Activation = "relu"
    """Nonlinearity; the initialisation uses its gain."""
    bias: bool = True
    """Whether layers have biases."""
    norm: Literal["none", "batch", "layer"] = "none"
    """Normalisation before each activation."""


class Mlp(_Plain):
    """`depth` hidden layers of `width` units."""

    family: Literal["mlp"]
    depth: Annotated[int, Field(ge=0, le=1000)] = 2
    """Number of hidden layers."""


class Cnn(_Plain):
    """`depth` strided 3x3 convolutions, doubling the channels, then global average pooling."""

    family: Literal["cnn"]
    depth: Annotated[int, Field(ge=1, le=12)] = 3
    """Number of convolutions."""


class Vit(Model):
    """timm's VisionTransformer."""

    family: Literal["vit"]
    width: Count
    """Embedding size; a multiple of `heads`."""
    depth: Annotated[int, Field(ge=1, le=1000)] = 6
    """Number of transformer blocks."""
    heads: Annotated[int, Field(ge=1, le=1000)] = 3
    """Attention heads."""
    patch: Annotated[int, Field(ge=1, le=1000)] = 4
    """Side of a patch in pixels; divides the image's sides."""
    activation: Activation = "gelu"
    """Nonlinearity of the blocks' MLPs."""

    @classmethod
    def clashes(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """See :meth:`Section.clashes`."""
        width, heads = values.get("width"), values.get("heads", cls.model_fields["heads"].default)
        if positive(width) and positive(heads) and width % heads:
            near = max(1, width // heads) * heads
            yield "width", f"{width} is not a multiple of heads {heads}, which split it; use {near}"


class Resnet(Model):
    """timm's ResNet of basic blocks in up to four stages, with a 3x3 stem."""

    family: Literal["resnet"]
    width: Annotated[int, Field(ge=2, le=10**6, multiple_of=2)]
    """Channels of the first stage, doubled at each stage; even."""
    depth: Annotated[int, Field(ge=2, le=1000)] = 8
    """Number of residual blocks, spread evenly over the stages."""
    activation: Activation = "relu"
    """Nonlinearity."""


class Timm(Model):
    """Any model of timm, untrained, by its name."""

    family: Annotated[str, Field(pattern=r"^timm:[A-Za-z0-9_.]+$")]
    kwargs: dict[str, Any] = Field(default_factory=dict)
    """Passed to timm.create_model."""

    @classmethod
    def clashes(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """See :meth:`Section.clashes`."""
        yield from _unfit_for_json("kwargs", values.get("kwargs"), depth=0)


def _unfit_for_json(key: str, value: Any, depth: int) -> Iterator[tuple[str, str]]:
    """Yield what cannot be written down exactly: infinite numbers, bottomless nesting."""
    if depth > _DEEPEST:
        yield key.split(".")[0], f"is nested more than {_DEEPEST} levels deep"
    elif isinstance(value, float) and not math.isfinite(value):
        yield key, f"must be a finite number, not {value}"
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _unfit_for_json(f"{key}.{name}", inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from _unfit_for_json(key, inner, depth + 1)
