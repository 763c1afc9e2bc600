"""The ``model`` section: the network that is trained."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from flexhpc.config.sections.base import (
    INTERNAL,
    LOCATION,
    NUISANCE,
    UNION_TAG,
    Count,
    Fraction,
    PositiveNumber,
    Problems,
    Section,
)

_MAX_DEPTH = 10
_PRETRAINED_KEYS = (
    "checkpoint_path",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "cache_dir",
)
_LOADING_KEYS = (
    "trust_remote_code",
    "local_files_only",
    "cache_dir",
    "revision",
    "num_labels",
    "return_unused_kwargs",
)
Activation = Literal["relu", "leaky_relu", "tanh", "identity", "gelu"]
Depth = Annotated[int, Field(ge=1, le=1000)]
Init = Literal["torch", "he", "lecun", "orthogonal", "mup"]


class Subspace(Section):
    """Training in a random subspace: the weights are theta0 + P z, where theta0 are the initial
    weights and P is a fixed random matrix. Only z is trained."""

    dims: Count
    """Dimension of the random subspace: the length of z in the weights theta0 + P z, and therefore
    the number of trained parameters. Training starts at z = 0."""
    projection: Literal["dense", "sparse", "kronecker", "fastfood"] = "dense"
    """Type of the fixed random matrix P in theta0 + P z. The columns of P have unit length (exactly
    for `dense`, on average for the other types)."""


class LowRank(Section):
    """Low-rank training (LoRA): every matrix W keeps its initial value, and the product B A of two
    smaller matrices is added to W and trained."""

    rank: Count
    """Rank of the trained product B A that is added to each matrix, limited to the smaller
    dimension of the matrix."""


class Quantised(Section):
    """Quantised weights: in each forward pass, every entry of each weight matrix is rounded to one
    of 2^bits values. The weights are trained with the straight-through estimator."""

    bits: Annotated[int, Field(ge=1, le=16)]
    """Bits per weight, so that each weight has one of 2^bits values. Vectors (biases, norms) are
    not quantised."""


class Lora(Section):
    """LoRA adapters (Hu et al. 2021, arXiv 2106.09685): the product of two smaller matrices is
    added to the weights of a layer. Only these matrices and the head are trained."""

    rank: Count
    """Rank of the product of the two matrices of each adapter."""
    alpha: PositiveNumber | None = None
    """The product is multiplied by alpha / rank; by default, alpha equals rank."""
    targets: Annotated[list[str], Field(min_length=1)] | None = None
    """Names of the layers that get an adapter, or the ends of their names, such as `query` for
    `encoder.layer.0.attention.self.query`. By default, all linear layers and convolutions without
    groups, except the head, get an adapter."""
    dropout: Fraction | None = None
    """Dropout rate of the inputs of the adapters; by default 0."""


class Peft(Section):
    """Any method of the package peft that can be added to any network."""

    method: str
    """Name of the method in peft, such as `LOHA` or `IA3`."""
    kwargs: dict[str, Any] | None = None
    """Keyword arguments for the method's configuration class in peft."""

    def combination_problems(self) -> Problems:
        yield from json_problems("kwargs", self.kwargs)


class Adapter(Section):
    """Adapters, which are trained together with the head; give either `lora` or `peft`."""

    lora: Lora | None = None
    """LoRA adapters."""
    peft: Peft | None = None
    """Adapters of another method of peft."""

    def combination_problems(self) -> Problems:
        if self.lora is None and self.peft is None:
            yield "lora", "is required in this mapping, such as {lora: {rank: 8}}"
        if self.lora is not None and self.peft is not None:
            yield "peft", "cannot be combined with lora; remove one of them"


Adapt = Annotated[
    Annotated[Literal["full", "head", "bias"], Tag(f"{UNION_TAG}name")]
    | Annotated[Adapter, Tag(f"{UNION_TAG}mapping")],
    Discriminator(
        lambda value: UNION_TAG + ("mapping" if isinstance(value, dict | Section) else "name")
    ),
]


class Model(Section):
    """Keys that all model families share."""

    images_only: ClassVar[bool] = False
    """Whether the model accepts only images (channels, height, width), not vectors."""

    family: str
    """Network family."""

    @property
    def predicts_tokens(self) -> bool:
        """Whether the model predicts the tokens of a sequence instead of one class per sample."""
        return False

    @property
    def batch_norm(self) -> bool:
        """Whether the model uses batch normalisation."""
        return getattr(self, "norm", "none") == "batch"


class Network(Model):
    """Keys that all families except ``none`` share.

    ``import_path`` names a function that takes the section, the shape of a sample and the number of
    classes. It returns an untrained torch.nn.Module with one output per class, initialised from
    torch's global random state.
    """

    images_only: ClassVar[bool] = True
    any_memory_format: ClassVar[bool] = False
    """Whether all layers work in any memory format (channels_last or contiguous)."""

    subspace: Subspace | None = None
    """Training in a random subspace."""
    low_rank: LowRank | None = None
    """Training of low-rank updates of the matrices."""
    quantised: Quantised | None = None
    """Training of quantised weights."""
    pretrained: Annotated[str | None, LOCATION] = None
    """File with pretrained weights (.safetensors, or a state_dict written by torch.save), or a
    folder that contains model.safetensors or pytorch_model.bin. The hash of the weights, not their
    path, is part of a point's id. The head keeps its random weights if the file has no head, or one
    for another number of classes. The head is the last linear layer; with `hf:PATH`, it consists of
    all layers outside the base model, and of a pooler that the file lacks."""
    weights: Annotated[str | None, INTERNAL] = None
    """Hash of the pretrained weights and of config.json."""
    adapt: Annotated[Adapt | None, BeforeValidator(lambda v: None if v == "full" else v)] = None
    """Trained part of the network. `full` (the default): all parameters. `head`: the head (see
    `pretrained`). `bias`: the head and all biases. A mapping, such as `{lora: {rank: 8}}`: the head
    and adapters, which the package peft adds to the network."""
    frozen_norm: Literal["eval", "train"] | None = None
    """Mode of the layers of a partly trained network, except the head and adapters. `eval` (the
    default): dropout is inactive, and batch normalisation uses the running statistics of the
    pretrained weights. `train`: as in a network that is trained fully."""

    def combination_problems(self) -> Problems:
        for key in self.reparameterizations[1:]:
            yield key, f"cannot be combined with {self.reparameterizations[0]}; remove one of them"
        if self.adapt is None and self.frozen_norm is not None:
            yield "frozen_norm", "has no effect with adapt: full; remove it"

    @property
    def reparameterizations(self) -> list[str]:
        """The keys that replace the trained parameters and are set; more than one is an error."""
        keys = ("subspace", "low_rank", "quantised", "adapt")
        return [key for key in keys if getattr(self, key) is not None]


class Initialised(Network):
    """Keys of all families whose initialisation can be selected."""

    init: Init = "torch"
    """Initialisation of the weights. `torch`: the default of torch's layers and of timm. With all
    other values, linear layers and convolutions have zero biases, and their weights are random.
    `he`: from N(0, gain^2 / fan_in). `lecun`: the same distribution, with a default gain of 1.
    `orthogonal`: random orthogonal matrices times gain. The last layer always has a gain of 1.
    `mup` (only for mlp and cnn with sgd, gd, adam or adamw): as `he`, but in the maximal update
    parametrisation (Yang et al. 2022, arXiv 2203.03466, table 3), which adapts the last layer and
    the learning rate of each layer to the ratio of the width to `base_width`."""

    def combination_problems(self) -> Problems:
        yield from super().combination_problems()
        if self.init == "mup":
            if not isinstance(self, _MlpOrCnn):
                yield "init", "mup is implemented for mlp and cnn only; use another init"
            for key in self.reparameterizations:
                problem = f"mup sets a learning rate per layer and cannot be combined with {key}"
                yield "init", f"{problem}; use another init"


class Linear(Initialised):
    """One linear layer from the flattened input to the classes."""

    import_path: ClassVar[str] = "flexhpc.models.families:linear"
    images_only: ClassVar[bool] = False

    family: Literal["linear"]
    init: Init = "torch"
    """Initialisation of the weights. `torch`: as in nn.Linear. `he` and `lecun`: from N(0, 1 /
    fan_in). `orthogonal`: orthogonal rows. All values except `torch` set the bias to zero."""
    bias: bool = True
    """Whether the layer has a bias."""


class Sized(Initialised):
    """Keys of all families with a variable width; each variant also defines ``depth``."""

    min_width: ClassVar[int] = 1
    """Smallest width."""

    width: Count | None = None
    """Width of the network; required unless `match_params` is set."""
    scaling: Literal["width", "depth", "both", "compound", "vit_shape"] | None = None
    """Rule by which `scale` enlarges the network. `width`, `depth`, `both`: multiply the width, the
    depth or both by scale. `compound` (EfficientNet): multiply the width by 1.1^scale and the depth
    by 1.2^scale, and enlarge the sides of images by 1.15^scale inside the network. `vit_shape` (vit
    only; SoViT, arXiv 2305.13035): multiply the width by scale^0.22, the depth by scale^0.45 and
    the units of the MLPs by scale^0.6."""
    scale: Annotated[float, Field(ge=0, le=1e4, allow_inf_nan=False)] | None = None
    """Number that the rule `scaling` uses: as a factor (`width`, `depth`, `both`), as an exponent
    (`compound`) or as the base of powers (`vit_shape`)."""
    match_params: Count | None = None
    """Target for the number of parameters of the network. The width is chosen so that the number of
    parameters is as close as possible to the target."""
    gain: Annotated[PositiveNumber | None, NUISANCE] = None
    """Factor by which the initial weights of all layers except the last are multiplied. The default
    is 1 if `init` is `torch` or `lecun`; otherwise it is the gain that preserves the variance of a
    signal through the activation."""
    base_width: Count | None = None
    """Width at which `mup` equals the standard parametrisation; by default 64."""

    @property
    def width_multiple(self) -> int:
        """A positive integer; every width must be a multiple of it."""
        return 1

    def combination_problems(self) -> Problems:
        yield from super().combination_problems()
        if self.width is None and self.match_params is None:
            yield "width", "is required; give it under fixed, grid or zip, or give match_params"
        if self.width is not None and self.match_params is not None:
            yield "match_params", "cannot be combined with width; remove one of them"
        if self.scaling is None and self.scale is not None:
            yield "scaling", "is required with scale; choose a rule"
        if self.scaling is not None and self.scale is None:
            yield "scale", "is required with scaling; give a number"
        if self.scaling == "vit_shape" and self.family != "vit":
            yield "scaling", "vit_shape is for vit only; use width, depth, both or compound"
        if self.scaling is not None and self.match_params is not None:
            yield "scaling", "cannot be combined with match_params; remove one of them"
        if self.base_width is not None and self.init != "mup":
            yield "base_width", "has no effect without init: mup; remove it"


class _MlpOrCnn(Sized):
    """Keys that mlp and cnn share."""

    width: Count | None = None
    """Number of units of each hidden layer (mlp) or number of channels of the first layer (cnn);
    required unless `match_params` is set."""
    activation: Activation = "relu"
    """Activation function."""
    bias: bool = True
    """Whether layers have biases."""
    norm: Literal["none", "batch", "layer"] = "none"
    """Normalisation before each activation."""


class Mlp(_MlpOrCnn):
    """`depth` hidden layers of `width` units."""

    import_path: ClassVar[str] = "flexhpc.models.families:mlp"
    images_only: ClassVar[bool] = False

    family: Literal["mlp"]
    depth: Annotated[int, Field(ge=0, le=1000)] = 2
    """Number of hidden layers."""


class Cnn(_MlpOrCnn):
    """`depth` strided convolutions, each with twice the channels of the previous one, and global
    average pooling."""

    import_path: ClassVar[str] = "flexhpc.models.families:cnn"
    any_memory_format: ClassVar[bool] = True

    family: Literal["cnn"]
    depth: Annotated[int, Field(ge=1, le=12)] = 3
    """Number of convolutions."""
    kernel: Annotated[int, Field(ge=1, le=99)] = 3
    """Side length of the convolution kernels in pixels; must be odd."""

    def combination_problems(self) -> Problems:
        yield from super().combination_problems()
        if self.kernel % 2 == 0:
            yield "kernel", f"must be odd, not {self.kernel}; use {self.kernel + 1}"


class _Transformer(Sized):
    """Keys that vit and gpt share."""

    width: Count | None = None
    """Embedding size, a multiple of `heads`; required unless `match_params` is set."""
    heads: Depth
    """Number of attention heads."""
    activation: Activation = "gelu"
    """Activation function in the MLPs of the blocks."""
    mlp_ratio: PositiveNumber = 4.0
    """Number of units of the MLP in each block, as a multiple of `width`."""

    @property
    def width_multiple(self) -> int:
        """The number of attention heads, because every width must be a multiple of it."""
        return self.heads

    def combination_problems(self) -> Problems:
        yield from super().combination_problems()
        if self.width is not None and self.width % self.heads:
            near = max(1, self.width // self.heads) * self.heads
            yield "width", f"{self.width} is not a multiple of heads ({self.heads}); use {near}"


class Vit(_Transformer):
    """timm's VisionTransformer."""

    import_path: ClassVar[str] = "flexhpc.models.families:vit"

    family: Literal["vit"]
    depth: Depth = 6
    """Number of transformer blocks."""
    heads: Depth = 3
    """Number of attention heads."""
    patch: Depth = 4
    """Side length of a patch in pixels; must divide the sides of the image."""


class Resnet(Sized):
    """timm's ResNet with basic blocks in up to four stages, and a stem of 3x3 convolutions."""

    import_path: ClassVar[str] = "flexhpc.models.families:resnet"
    any_memory_format: ClassVar[bool] = True

    family: Literal["resnet"]
    width: Annotated[int, Field(ge=2, le=10**6, multiple_of=2)] | None = None
    """Number of channels of the first stage, which must be even. Each further stage has twice the
    channels of the previous one. Required unless `match_params` is set."""
    depth: Annotated[int, Field(ge=2, le=1000)] = 8
    """Number of residual blocks, distributed evenly over the stages."""
    activation: Activation = "relu"
    """Activation function."""
    norm: Literal["batch", "layer", "none"] = "batch"
    """Normalisation after each convolution."""

    @property
    def width_multiple(self) -> int:
        """2, because every width must be even."""
        return 2


class Efficientnet(Sized):
    """timm's EfficientNet."""

    import_path: ClassVar[str] = "flexhpc.models.families:efficientnet"
    any_memory_format: ClassVar[bool] = True

    family: Literal["efficientnet"]
    width: Annotated[int, Field(ge=8, le=10**6, multiple_of=8)] | None = None
    """Number of channels of the stem (32 in EfficientNet-B0), a multiple of 8. The number of
    channels of every other layer is proportional to it. Required unless `match_params` is set."""
    depth: Depth = 16
    """Number of blocks before rounding (EfficientNet-B0: 16): the number of blocks in each stage of
    B0 is multiplied by `depth` / 16 and rounded up."""
    activation: Literal["silu", "relu", "leaky_relu", "tanh", "identity", "gelu"] = "silu"
    """Activation function."""

    @property
    def width_multiple(self) -> int:
        """8, because timm rounds numbers of channels to multiples of 8."""
        return 8

    @property
    def batch_norm(self) -> bool:
        """True, because every EfficientNet uses batch normalisation."""
        return True


class Mixer(Sized):
    """timm's MLP-Mixer."""

    import_path: ClassVar[str] = "flexhpc.models.families:mixer"
    min_width: ClassVar[int] = 2  # half of it is a number of units, which must be at least 1

    family: Literal["mixer"]
    width: Count | None = None
    """Embedding size; required unless `match_params` is set."""
    depth: Depth = 6
    """Number of mixer blocks."""
    patch: Depth = 4
    """Side length of a patch in pixels; must divide the sides of the image."""
    activation: Activation = "gelu"
    """Activation function."""


class Gpt(_Transformer):
    """A decoder-only transformer: `depth` timm blocks with causal attention, learned position
    embeddings and an output layer that does not share weights with the embedding."""

    import_path: ClassVar[str] = "flexhpc.models.families:gpt"
    images_only: ClassVar[bool] = False

    family: Literal["gpt"]
    depth: Depth = 2
    """Number of transformer blocks."""
    heads: Depth = 2
    """Number of attention heads."""

    @property
    def predicts_tokens(self) -> bool:
        return True

    def combination_problems(self) -> Problems:
        yield from super().combination_problems()
        if self.scaling == "compound":
            problem = "compound also resizes images, but gpt reads tokens"
            yield "scaling", f"{problem}; use width, depth or both"


class Timm(Network):
    """Any timm model, selected by its name."""

    import_path: ClassVar[str] = "flexhpc.models.families:build_timm"
    aliases: ClassVar[tuple[str, ...]] = ("timm:NAME",)

    family: Annotated[str, Field(pattern=r"^timm:[A-Za-z0-9_.]+$")]
    kwargs: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments for timm.create_model."""

    def combination_problems(self) -> Problems:
        yield from super().combination_problems()
        yield from json_problems("kwargs", self.kwargs)
        for key in self.kwargs:
            if key in _PRETRAINED_KEYS:
                problem = "loads pretrained weights whose content is unknown"
                yield f"kwargs.{key}", f"{problem}; give their file as model.pretrained"


class HuggingFaceModel(Network):
    """Any network of the package transformers, built from the configuration in a local folder or in
    the local cache of Hugging Face (nothing is downloaded)."""

    import_path: ClassVar[str] = "flexhpc.models.hugging_face:build_hugging_face"
    aliases: ClassVar[tuple[str, ...]] = ("hf:NAME",)
    images_only: ClassVar[bool] = False

    family: Annotated[str, Field(pattern=r"^hf:.+$")]
    """The folder that contains config.json, or the name of a model in the cache, such as
    `hf:models/minilm` or `hf:gpt2`. Its weights are random unless `pretrained` is set."""
    task: Literal["classification", "causal_lm"] = "classification"
    """`classification`: images or sequences of token ids have one class each. `causal_lm`: every
    token of a sequence is predicted from the previous tokens."""
    kwargs: dict[str, Any] = Field(default_factory=dict)
    """Changes of the configuration, such as `{num_hidden_layers: 2}`."""

    @property
    def predicts_tokens(self) -> bool:
        return self.task == "causal_lm"

    def combination_problems(self) -> Problems:
        yield from super().combination_problems()
        yield from json_problems("kwargs", self.kwargs)
        for key in self.kwargs:
            if key in _LOADING_KEYS:
                yield f"kwargs.{key}", "is set by flexhpc; remove it"


class NoModel(Model):
    """No network, because the trainer (`training.trainer`) creates the model."""

    family: Literal["none"]


def json_problems(key: str, value: Any, depth: int = 0) -> Problems:
    """Yield (key, problem) for each number in ``value`` that is not finite, and if ``value`` is
    nested too deeply."""
    if depth > _MAX_DEPTH:
        yield key.split(".")[0], f"is nested more than {_MAX_DEPTH} levels deep"
    elif isinstance(value, float) and not math.isfinite(value):
        yield key, f"must be a finite number, not {value}"
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from json_problems(f"{key}.{name}", inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from json_problems(key, inner, depth + 1)
