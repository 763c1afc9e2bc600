"""The ``model`` section: what is trained."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from flexhpc.config.sections.base import LATER, NUISANCE, Count, Rate, Section, Since, positive

_DEEPEST = 10
_TRAINED = (
    "checkpoint_path",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "cache_dir",
)
Activation = Literal["relu", "leaky_relu", "tanh", "identity", "gelu"]
Depth = Annotated[int, Field(ge=1, le=1000)]
Init = Literal["torch", "he", "lecun", "orthogonal", "mup"]


class Subspace(Section):
    """Training moves in a random subspace: weights = initial ones + P z, and only z is trained."""

    dims: Count
    """Its dimension d, which counts as the number of parameters; z starts at zero."""
    projection: Literal["dense", "sparse", "kronecker", "fastfood"] = "dense"
    """Kind of the fixed random matrix P; its columns have unit length, exactly or on average."""


class LowRank(Section):
    """Every matrix W stays as initialised, and B A is trained on top of it (LoRA)."""

    rank: Count
    """Rank of B A; at most the smaller side of each matrix."""


class Quantised(Section):
    """Matrices are rounded to few values in each forward pass, and trained straight through."""

    bits: Annotated[int, Field(ge=1, le=16)]
    """Bits of a weight: it takes one of 2^bits values. Vectors (biases, norms) keep theirs."""


class Model(Section):
    """What is trained."""

    images_only: ClassVar[bool] = False
    """Whether it takes images (channels, height, width), but no vectors."""
    tokens: ClassVar[bool] = False
    """Whether it predicts the tokens of sequences."""

    family: str
    """Kind of network."""

    @property
    def batch_norm(self) -> bool:
        """Whether it normalises over the batch."""
        return getattr(self, "norm", "none") == "batch"


class Network(Model):
    """A network that is trained.

    ``does`` names a function (section, shape of a sample, classes) -> untrained torch.nn.Module
    with as many outputs, initialised from torch's global random state.
    """

    images_only: ClassVar[bool] = True
    any_layout: ClassVar[bool] = False
    """Whether all its layers work wherever in memory the channels of an image lie."""

    subspace: Subspace | None = None
    """Trains in a random subspace."""
    low_rank: LowRank | None = None
    """Trains low-rank changes of the matrices."""
    quantised: Quantised | None = None
    """Trains quantised weights."""

    @classmethod
    def clashes(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """See :meth:`Section.clashes`."""
        given = [k for k in ("subspace", "low_rank", "quantised") if values.get(k) is not None]
        for key in given[1:]:
            yield key, f"does not go together with {given[0]}; keep one of them"


class Initialised(Network):
    """What all families share whose weights flexhpc can draw."""

    init: Annotated[Init, LATER] = "torch"
    """How weights are drawn. `torch`: as torch's layers and timm do by themselves. The others draw
    the matrices of all linear layers and convolutions, with zero biases: `he` from
    N(0, gain^2 / fan_in), `lecun` the same with a gain of 1, `orthogonal` random orthogonal ones
    times gain; the last layer has a gain of 1. `mup` (mlp, cnn): maximal update parametrisation of
    `he`, with the rate of each layer by its width over `base_width`."""

    @classmethod
    def clashes(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """See :meth:`Section.clashes`."""
        yield from super().clashes(values)
        mup = values.get("init") == "mup"
        if values.get("base_width") is not None and not mup:
            yield "base_width", "has no effect without init: mup; leave it out"
        if mup and not issubclass(cls, _Plain):
            yield "init", "mup is defined here for mlp and cnn; use another"
        for key in ("subspace", "low_rank", "quantised"):
            if mup and values.get(key) is not None:
                yield "init", f"mup sets rates of layers, which {key} does not have; use another"


class Linear(Initialised):
    """One linear layer from the flattened input to the classes."""

    does: ClassVar[str] = "flexhpc.models.families:linear"
    images_only: ClassVar[bool] = False

    family: Literal["linear"]
    init: Annotated[Init, Since(version=2, before="he")] = "torch"
    """How weights are drawn. `torch`: as nn.Linear does; `he`, `lecun`: from N(0, 1 / fan_in), with
    a zero bias; `orthogonal`: orthogonal rows."""
    bias: bool = True
    """Whether the layer has a bias."""


class Sized(Initialised):
    """What all families that come in sizes share."""

    draws: ClassVar[bool] = False
    """Whether the network draws its weights as ``init`` says while it is built."""
    narrowest: ClassVar[int] = 1
    """Smallest width."""

    width: Count | None = None
    """Size of a layer; required unless `match_params` is given."""
    scaling: Literal["width", "depth", "both", "compound", "vit_shape"] | None = None
    """Rule by which `scale` makes the network larger: `width` and `depth` multiply that one, `both`
    each. `compound` is EfficientNet's with scale as its exponent: width 1.1^scale, depth 1.2^scale,
    and images resized by 1.15^scale inside the network. `vit_shape` (vit only) takes scale as the
    factor of compute: width scale^0.22, depth scale^0.45, the MLPs' units scale^0.6 (SoViT)."""
    scale: Annotated[float, Field(ge=0, le=1e4, allow_inf_nan=False)] | None = None
    """How much larger than `width` and `depth` say."""
    match_params: Count | None = None
    """Takes the width whose exact number of parameters is closest to this one."""
    gain: Annotated[Rate | None, NUISANCE] = None
    """Factor of the weights of all layers but the last. By default 1 with `torch` and `lecun`, else
    the activation's: what keeps a signal's variance."""
    base_width: Annotated[Count | None, LATER] = None
    """Width at which `mup` is the plain network (64)."""

    @property
    def width_multiple(self) -> int:
        """What every width is a multiple of."""
        return 1

    @classmethod
    def clashes(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """See :meth:`Section.clashes`."""
        yield from super().clashes(values)
        width, matched = values.get("width"), values.get("match_params")
        scaling, scale = values.get("scaling"), values.get("scale")
        if width is None and matched is None:
            yield "width", "is required; give it under fixed, grid or zip, or give match_params"
        if width is not None and matched is not None:
            yield "match_params", "chooses the width; leave width out"
        if scaling is None and scale is not None:
            yield "scaling", "is required beside scale; choose a rule"
        if scaling is not None and scale is None:
            yield "scale", "is required beside scaling; say how much"
        if scaling == "vit_shape" and values.get("family") != "vit":
            yield "scaling", "vit_shape is a rule for vit; use width, depth, both or compound"
        if scaling is not None and matched is not None:
            yield "scaling", "does not go together with match_params; keep one of them"


class _Plain(Sized):
    draws: ClassVar[bool] = True

    width: Count | None = None
    """Units of every hidden layer (mlp), or channels of the first layer (cnn); required unless
    `match_params` is given."""
    activation: Activation = "relu"
    """Nonlinearity."""
    init: Annotated[Init, Since(version=2, before="he")] = "torch"
    """How weights are drawn. `torch`: as nn.Linear and nn.Conv2d do. The others draw weights with
    zero biases: `he` from N(0, gain^2 / fan_in), `lecun` the same with a gain of 1, `orthogonal`
    random orthogonal ones times gain; the last layer has a gain of 1. `mup`: maximal update
    parametrisation of `he` (Yang et al. 2022, arXiv 2203.03466, table 3), with the rate of each
    layer by `width` over `base_width`; for sgd, gd, adam and adamw."""
    bias: bool = True
    """Whether layers have biases."""
    norm: Literal["none", "batch", "layer"] = "none"
    """Normalisation before each activation."""


class Mlp(_Plain):
    """`depth` hidden layers of `width` units."""

    does: ClassVar[str] = "flexhpc.models.families:mlp"
    images_only: ClassVar[bool] = False

    family: Literal["mlp"]
    depth: Annotated[int, Field(ge=0, le=1000)] = 2
    """Number of hidden layers."""


class Cnn(_Plain):
    """`depth` strided convolutions, doubling the channels, then global average pooling."""

    does: ClassVar[str] = "flexhpc.models.families:cnn"
    any_layout: ClassVar[bool] = True

    family: Literal["cnn"]
    depth: Annotated[int, Field(ge=1, le=12)] = 3
    """Number of convolutions."""
    kernel: Annotated[int, Field(ge=1, le=99), LATER] = 3
    """Side of the convolutions' kernels in pixels; odd."""

    @classmethod
    def clashes(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """See :meth:`Section.clashes`."""
        yield from super().clashes(values)
        kernel = values.get("kernel")
        if positive(kernel) and kernel % 2 == 0:
            yield "kernel", f"{kernel} has no centre; use {kernel + 1}"


class _Attending(Sized):
    width: Count | None = None
    """Embedding size; a multiple of `heads`; required unless `match_params` is given."""
    heads: Depth
    """Attention heads."""
    activation: Activation = "gelu"
    """Nonlinearity of the blocks' MLPs."""
    mlp_ratio: Annotated[Rate, LATER] = 4.0
    """Units of the blocks' MLPs over `width`."""

    @property
    def width_multiple(self) -> int:
        """Heads split the width."""
        return self.heads

    @classmethod
    def clashes(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """See :meth:`Section.clashes`."""
        yield from super().clashes(values)
        width, heads = values.get("width"), values.get("heads", cls.model_fields["heads"].default)
        if positive(width) and positive(heads) and width % heads:
            near = max(1, width // heads) * heads
            yield "width", f"{width} is not a multiple of heads {heads}, which split it; use {near}"


class Vit(_Attending):
    """timm's VisionTransformer."""

    does: ClassVar[str] = "flexhpc.models.families:vit"

    family: Literal["vit"]
    depth: Depth = 6
    """Number of transformer blocks."""
    heads: Depth = 3
    """Attention heads."""
    patch: Depth = 4
    """Side of a patch in pixels; divides the image's sides."""


class Resnet(Sized):
    """timm's ResNet of basic blocks in up to four stages, with a 3x3 stem."""

    does: ClassVar[str] = "flexhpc.models.families:resnet"
    any_layout: ClassVar[bool] = True

    family: Literal["resnet"]
    width: Annotated[int, Field(ge=2, le=10**6, multiple_of=2)] | None = None
    """Channels of the first stage, doubled at each stage; even; required unless `match_params` is
    given."""
    depth: Annotated[int, Field(ge=2, le=1000)] = 8
    """Number of residual blocks, spread evenly over the stages."""
    activation: Activation = "relu"
    """Nonlinearity."""
    norm: Annotated[Literal["batch", "layer", "none"], LATER] = "batch"
    """Normalisation after each convolution."""

    @property
    def width_multiple(self) -> int:
        """Widths are even."""
        return 2


class Efficientnet(Sized):
    """timm's EfficientNet."""

    does: ClassVar[str] = "flexhpc.models.families:efficientnet"
    any_layout: ClassVar[bool] = True

    family: Literal["efficientnet"]
    width: Annotated[int, Field(ge=8, le=10**6, multiple_of=8)] | None = None
    """Channels of the stem (32 in B0), which all others follow; a multiple of 8; required unless
    `match_params` is given."""
    depth: Depth = 16
    """Number of blocks (16 in B0), spread over the stages as timm rounds them."""
    activation: Literal["silu", "relu", "leaky_relu", "tanh", "identity", "gelu"] = "silu"
    """Nonlinearity."""

    @property
    def width_multiple(self) -> int:
        """timm rounds channels to it."""
        return 8

    @property
    def batch_norm(self) -> bool:
        """Always."""
        return True


class Mixer(Sized):
    """timm's MLP-Mixer."""

    does: ClassVar[str] = "flexhpc.models.families:mixer"
    narrowest: ClassVar[int] = 2  # half of it must be a unit

    family: Literal["mixer"]
    width: Count | None = None
    """Embedding size; required unless `match_params` is given."""
    depth: Depth = 6
    """Number of mixer blocks."""
    patch: Depth = 4
    """Side of a patch in pixels; divides the image's sides."""
    activation: Activation = "gelu"
    """Nonlinearity."""


class Gpt(_Attending):
    """A decoder-only transformer: `depth` blocks of timm's with causal attention, learnt places,
    and a head of its own."""

    does: ClassVar[str] = "flexhpc.models.families:gpt"
    images_only: ClassVar[bool] = False
    tokens: ClassVar[bool] = True

    family: Literal["gpt"]
    depth: Depth = 2
    """Number of transformer blocks."""
    heads: Depth = 2
    """Attention heads."""

    @classmethod
    def clashes(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """See :meth:`Section.clashes`."""
        yield from super().clashes(values)
        if values.get("scaling") == "compound":
            yield "scaling", "compound resizes images; use width, depth or both"


class Timm(Network):
    """Any model of timm, untrained, by its name."""

    does: ClassVar[str] = "flexhpc.models.families:by_name"
    called: ClassVar[tuple[str, ...]] = ("timm:NAME",)

    family: Annotated[str, Field(pattern=r"^timm:[A-Za-z0-9_.]+$")]
    kwargs: dict[str, Any] = Field(default_factory=dict)
    """Passed to timm.create_model."""

    @classmethod
    def clashes(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """See :meth:`Section.clashes`."""
        yield from super().clashes(values)
        kwargs = values.get("kwargs")
        yield from unfit_for_json("kwargs", kwargs, depth=0)
        for key in kwargs if isinstance(kwargs, dict) else ():
            if key in _TRAINED:
                yield f"kwargs.{key}", "is about trained weights, and networks start untrained here"


class NoModel(Model):
    """No network: what is trained is known to `training.trainer` alone."""

    family: Literal["none"]


def unfit_for_json(key: str, value: Any, depth: int) -> Iterator[tuple[str, str]]:
    """Yield what cannot be written down exactly: infinite numbers, bottomless nesting."""
    if depth > _DEEPEST:
        yield key.split(".")[0], f"is nested more than {_DEEPEST} levels deep"
    elif isinstance(value, float) and not math.isfinite(value):
        yield key, f"must be a finite number, not {value}"
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from unfit_for_json(f"{key}.{name}", inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from unfit_for_json(key, inner, depth + 1)
