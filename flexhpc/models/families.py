"""Build the networks of all families, without scaling or reparameterization."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

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
from flexhpc.config.variants import load_implementation
from flexhpc.errors import PointError, one_line_message
from flexhpc.imports import imports_without_gc
from flexhpc.models.initialisation import (
    BASE_WIDTH,
    apply_mup,
    initialise_network,
    layer_initialiser,
    linear_and_conv_layers,
)

Shape = tuple[int, ...]
"""Shape of one sample: (channels, height, width), (features,), or (length,) for tokens."""
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.01),
    "tanh": nn.Tanh,
    "identity": nn.Identity,
    "gelu": nn.GELU,
}
_SMALL_IMAGE = 64


def build_family(model: Network, shape: Shape, classes: int) -> nn.Module:
    """Build an untrained network; its random weights are drawn from torch's global generator.

    The network has the attribute ``flexhpc_any_memory_format`` if all layers of its family work in
    any memory format.

    Args:
        model: the ``model`` section, with an explicit width; scaling and reparameterization are
            ignored.
        shape: shape of one sample.
        classes: number of outputs.

    Raises:
        PointError: the family does not accept samples of this shape or the settings of the
            ``model`` section, or timm is required but cannot be imported.
    """
    if len(shape) != 3 and model.images_only:
        raise PointError(
            f"model.family: {model.family} requires images, but samples have shape {shape}; "
            "use linear or mlp"
        )
    result: nn.Module = load_implementation(model)(model, shape, classes)
    if isinstance(model, Sized) and model.init == "mup":
        apply_mup(linear_and_conv_layers(result), _width(model) / (model.base_width or BASE_WIDTH))
    if model.any_memory_format:
        vars(result)["flexhpc_any_memory_format"] = True
    return result


def linear(model: Linear, shape: Shape, classes: int) -> nn.Module:
    """Build one linear layer: (n, ...) -> (n, classes)."""
    head = nn.Linear(math.prod(shape), classes, bias=model.bias)
    layer_initialiser(model)(head, True)
    return nn.Sequential(nn.Flatten(), head)


def mlp(model: Mlp, shape: Shape, classes: int) -> nn.Module:
    """Build an MLP with ``depth`` hidden layers of ``width`` units: (n, ...) -> (n, classes)."""
    initialise, width, features = layer_initialiser(model), _width(model), math.prod(shape)
    layers: list[nn.Module] = [nn.Flatten()]
    for _ in range(model.depth):
        hidden = nn.Linear(features, width, bias=model.bias)
        initialise(hidden, False)
        layers.append(hidden)
        if model.norm != "none":
            layers.append(nn.BatchNorm1d(width) if model.norm == "batch" else nn.LayerNorm(width))
        layers.append(ACTIVATIONS[model.activation]())
        features = width
    head = nn.Linear(features, classes, bias=model.bias)
    initialise(head, True)
    return nn.Sequential(*layers, head)


def cnn(model: Cnn, shape: Shape, classes: int) -> nn.Module:
    """Build ``depth`` convolutions of stride 2, then global average pooling and a linear head.

    The first convolution has ``width`` output channels, and every further convolution has twice as
    many as the previous one. ``kernel`` is odd and the padding is ``kernel // 2``, so that each
    convolution halves the sides of its input, rounded up. The network maps (n, channels, height,
    width) to (n, classes).
    """
    initialise, channels, kernel = layer_initialiser(model), shape[0], model.kernel
    layers: list[nn.Module] = []
    for level in range(model.depth):
        out = _width(model) * 2**level
        conv = nn.Conv2d(channels, out, kernel, stride=2, padding=kernel // 2, bias=model.bias)
        initialise(conv, False)
        layers.append(conv)
        if model.norm != "none":
            layers.append(nn.BatchNorm2d(out) if model.norm == "batch" else nn.GroupNorm(1, out))
        layers.append(ACTIVATIONS[model.activation]())
        channels = out
    head = nn.Linear(channels, classes, bias=model.bias)
    initialise(head, True)
    parts = {
        "body": nn.Sequential(*layers), "pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(),
        "head": head,
    }  # fmt: skip
    return nn.Sequential(OrderedDict(parts))


def vit(model: Vit, shape: Shape, classes: int) -> nn.Module:
    """Build timm's VisionTransformer with ``depth`` blocks and embeddings of size ``width``."""
    timm = _import_timm()
    sizes = {"depth": model.depth, "num_heads": model.heads, "mlp_ratio": model.mlp_ratio}
    result = timm.models.VisionTransformer(
        **_vit_and_mixer_kwargs(timm, model, shape, classes), **sizes
    )
    return initialise_network(result, model)


def mixer(model: Mixer, shape: Shape, classes: int) -> nn.Module:
    """Build timm's MlpMixer (Tolstikhin et al. 2021, arXiv 2105.01601).

    The token-mixing MLPs have ``width`` / 2 hidden units, rounded down; the channel-mixing MLPs
    have 4 * ``width``. With ``init: torch``, the weights of the last layer are initially zero.
    """
    timm = _import_timm()
    if _width(model) < model.min_width:
        raise PointError(
            f"model.width: {model.width} is too small, because token-mixing MLPs have width / 2 "
            f"hidden units; use at least {model.min_width}"
        )
    options = _vit_and_mixer_kwargs(timm, model, shape, classes)
    return initialise_network(timm.models.MlpMixer(**options, num_blocks=model.depth), model)


def _vit_and_mixer_kwargs(
    timm: Any, model: Vit | Mixer, shape: Shape, classes: int
) -> dict[str, Any]:
    """Return the keyword arguments that timm's VisionTransformer and MlpMixer share."""
    if any(side % model.patch for side in shape[1:]):
        raise PointError(
            f"model.patch: {model.patch} does not divide the {shape[1]}x{shape[2]} pixels of the "
            "images; use a divisor of their height and width"
        )
    return {
        "img_size": shape[1:], "patch_size": model.patch, "in_chans": shape[0],
        "num_classes": classes, "embed_dim": model.width,
        "act_layer": timm.layers.get_act_layer(model.activation),
    }  # fmt: skip


class GptNetwork(nn.Module):
    """Decoder-only transformer for token sequences (m, length).

    It uses timm's vision transformer blocks with causal attention. Embeddings are drawn from N(0,
    0.02^2), as in GPT-2.
    """

    def __init__(self, model: Gpt, length: int, vocabulary: int) -> None:
        super().__init__()
        timm, width = _import_timm(), _width(model)
        self.tokens = nn.Embedding(vocabulary + 1, width)  # the last token is the start token
        self.positions = nn.Embedding(length, width)
        for embedding in (self.tokens, self.positions):
            nn.init.normal_(embedding.weight, std=0.02)
        self.blocks = nn.ModuleList(
            timm.models.vision_transformer.Block(
                width, model.heads, model.mlp_ratio, qkv_bias=True,
                act_layer=timm.layers.get_act_layer(model.activation),
            )
            for _ in range(model.depth)
        )  # fmt: skip
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary)

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.head

    def forward(self, inputs: Tensor) -> Tensor:
        """Predict each token from the previous tokens; return logits (m, vocabulary, length)."""
        start = inputs.new_full((len(inputs), 1), self.tokens.num_embeddings - 1)
        previous = torch.cat([start, inputs[:, :-1]], dim=1).long()
        hidden = self.tokens(previous) + self.positions.weight
        for block in self.blocks:
            hidden = block(hidden, is_causal=True)
        logits: Tensor = self.head(self.norm(hidden))
        return logits.transpose(1, 2)


def gpt(model: Gpt, shape: Shape, classes: int) -> nn.Module:
    """Build :class:`GptNetwork` for ``shape`` (length,) and a vocabulary of ``classes`` tokens."""
    return initialise_network(GptNetwork(model, shape[0], classes), model)


def resnet(model: Resnet, shape: Shape, classes: int) -> nn.Module:
    """Build timm's ResNet with ``depth`` basic blocks in up to four stages.

    The first stage has ``width`` channels, and every further stage has twice as many as the
    previous one.

    The stem is timm's "deep" stem of three 3x3 convolutions. It keeps the resolution of images
    with sides of at most 64 pixels, as is usual for CIFAR (He et al. 2016, section 4.2), and
    divides the sides of larger images by four, as is usual for ImageNet. Convolutions have no
    biases, even if ``norm`` is none.
    """
    timm, width, depth = _import_timm(), _width(model), model.depth
    norms = {"batch": nn.BatchNorm2d, "layer": timm.layers.GroupNorm1, "none": nn.Identity}
    stages = min(4, depth)
    result: Any = timm.models.resnet.ResNet(
        timm.models.resnet.BasicBlock,
        layers=tuple(depth // stages + (stage < depth % stages) for stage in range(stages)),
        channels=tuple(width * 2**stage for stage in range(stages)),
        in_chans=shape[0],
        num_classes=classes,
        stem_type="deep",
        stem_width=width // 2,
        act_layer=timm.layers.get_act_layer(model.activation),
        norm_layer=norms[model.norm],
    )
    for stage in range(stages, 4):
        setattr(result, f"layer{stage + 1}", nn.Identity())
    if max(shape[1:]) <= _SMALL_IMAGE:
        result.conv1[0].stride = (1, 1)
        result.maxpool = nn.Identity()
    return initialise_network(result, model)


def efficientnet(model: Efficientnet, shape: Shape, classes: int) -> nn.Module:
    """Build timm's EfficientNet (Tan & Le 2019, arXiv 1905.11946), scaled relative to B0.

    All numbers of channels are multiplied by ``width`` / 32 and rounded to multiples of 8. The
    number of blocks of each of the seven stages is multiplied by ``depth`` / 16 and rounded up, so
    that there are at least 7 blocks. The stem keeps the resolution of images with sides of at most
    64 pixels, and halves the resolution of larger images, as in B0.
    """
    result: Any = _import_timm().models.efficientnet._gen_efficientnet(
        "efficientnet_b0",
        channel_multiplier=_width(model) / 32,
        depth_multiplier=model.depth / 16,
        in_chans=shape[0],
        num_classes=classes,
        act_layer=model.activation,
    )
    if max(shape[1:]) <= _SMALL_IMAGE:
        result.conv_stem.stride = (1, 1)
    return initialise_network(result, model)


def build_timm(model: Timm, shape: Shape, classes: int) -> nn.Module:
    """Build an untrained timm model by its name.

    Raises:
        PointError: the model does not exist, or rejects the keyword arguments.
    """
    timm, name = _import_timm(), model.family.removeprefix("timm:")
    if not timm.is_model(name):
        similar = ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:5])
        raise PointError(
            f"model.family: timm has no model {name!r}; "
            f"use {f'one of: {similar}' if similar else 'a name that timm.list_models() returns'}"
        )
    options = {"in_chans": shape[0], "num_classes": classes, **model.kwargs}
    try:
        result: nn.Module = timm.create_model(name, pretrained=False, **options)
    except Exception as error:
        raise PointError(f"model.kwargs: timm's {name} rejects {model.kwargs}: {error}") from None
    return result


def _width(model: Sized) -> int:
    assert model.width is not None, "match_params must be resolved before a network is built"
    return model.width


def _import_timm() -> Any:
    try:
        with imports_without_gc():
            import timm
    except Exception as error:  # a torchvision built for another torch raises various exceptions
        raise PointError(
            "model.family: this family needs timm and torchvision, which cannot be imported "
            f"({one_line_message(error)}); install versions that match torch, or use linear, mlp, "
            "cnn or a custom model"
        ) from None
    return timm
