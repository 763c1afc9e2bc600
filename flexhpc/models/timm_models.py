"""Families from timm: vit, gpt, mixer, resnet, efficientnet, and any other model by its name."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from flexhpc.errors import PointError, one_line
from flexhpc.imports import quick_imports

_SMALL_IMAGE = 64


def _timm() -> Any:
    try:
        with quick_imports():
            import timm
    except Exception as error:  # a torchvision built for another torch raises various exceptions
        what = one_line(error)
        raise PointError(
            f"model.family: this family needs timm and torchvision, which do not work here: {what}"
        ) from None
    return timm


def vit(
    shape: tuple[int, ...], classes: int, *, width: int, depth: int, heads: int, patch: int,
    activation: str, mlp_ratio: float,
) -> nn.Module:  # fmt: skip
    """Build timm's VisionTransformer for images of ``shape`` (channels, height, width)."""
    timm = _timm()
    _check_patch(shape, patch)
    model: nn.Module = timm.models.VisionTransformer(
        img_size=shape[1:],
        patch_size=patch,
        in_chans=shape[0],
        num_classes=classes,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        mlp_ratio=mlp_ratio,
        act_layer=timm.layers.get_act_layer(activation),
    )
    return model


class Gpt(nn.Module):
    """A decoder-only transformer on token sequences (length,).

    It uses timm's vision transformer blocks with causal attention. Embeddings are drawn from N(0,
    0.02^2), as in GPT-2.
    """

    def __init__(
        self, shape: tuple[int, ...], vocabulary: int, *, width: int, depth: int, heads: int,
        activation: str, mlp_ratio: float,
    ) -> None:  # fmt: skip
        super().__init__()
        timm = _timm()
        (length,) = shape
        self.tokens = nn.Embedding(vocabulary + 1, width)  # and a start token
        self.places = nn.Embedding(length, width)
        for embedding in (self.tokens, self.places):
            nn.init.normal_(embedding.weight, std=0.02)
        self.blocks = nn.ModuleList(
            timm.models.vision_transformer.Block(
                width, heads, mlp_ratio, qkv_bias=True,
                act_layer=timm.layers.get_act_layer(activation),
            )
            for _ in range(depth)
        )  # fmt: skip
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary)

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.head

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits of every token given the previous ones, (m, vocabulary, length)."""
        begin = inputs.new_full((len(inputs), 1), self.tokens.num_embeddings - 1)
        before = torch.cat([begin, inputs[:, :-1]], dim=1).long()
        hidden = self.tokens(before) + self.places.weight
        for block in self.blocks:
            hidden = block(hidden, is_causal=True)
        logits: Tensor = self.head(self.norm(hidden))
        return logits.transpose(1, 2)


def mixer(
    shape: tuple[int, ...], classes: int, *, width: int, depth: int, patch: int, activation: str
) -> nn.Module:
    """Build timm's MlpMixer (Tolstikhin et al. 2021, arXiv 2105.01601); its head starts at zero.

    The MLPs over patches have ``width`` / 2 units, rounded down, those over channels 4 ``width``.
    """
    timm = _timm()
    _check_patch(shape, patch)
    if width < 2:
        raise PointError(
            f"model.width: {width} leaves the mixer's MLPs over patches, which have width / 2 "
            "units, without any; use at least 2"
        )
    model: nn.Module = timm.models.MlpMixer(
        img_size=shape[1:],
        patch_size=patch,
        in_chans=shape[0],
        num_classes=classes,
        embed_dim=width,
        num_blocks=depth,
        act_layer=timm.layers.get_act_layer(activation),
    )
    return model


def _check_patch(shape: tuple[int, ...], patch: int) -> None:
    if any(side % patch for side in shape[1:]):
        raise PointError(
            f"model.patch: {patch} does not divide the {shape[1]}x{shape[2]} images; use a divisor"
        )


def resnet(
    shape: tuple[int, ...], classes: int, *, width: int, depth: int, activation: str, norm: str
) -> nn.Module:
    """Build timm's ResNet: ``depth`` basic blocks over up to four stages with doubling channels.

    The stem is timm's "deep" one: three 3x3 convolutions. It keeps the resolution of images of at
    most 64 pixels, as is usual for CIFAR (He et al. 2016, section 4.2), and reduces larger images
    by a factor of four, as for ImageNet. Convolutions have no biases, also if ``norm`` is none.
    """
    timm = _timm()
    norms = {"batch": nn.BatchNorm2d, "layer": timm.layers.GroupNorm1, "none": nn.Identity}
    stages = min(4, depth)
    model = timm.models.resnet.ResNet(
        timm.models.resnet.BasicBlock,
        layers=tuple(depth // stages + (stage < depth % stages) for stage in range(stages)),
        channels=tuple(width * 2**stage for stage in range(stages)),
        in_chans=shape[0],
        num_classes=classes,
        stem_type="deep",
        stem_width=width // 2,
        act_layer=timm.layers.get_act_layer(activation),
        norm_layer=norms[norm],
    )
    for stage in range(stages, 4):
        setattr(model, f"layer{stage + 1}", nn.Identity())
    if max(shape[1:]) <= _SMALL_IMAGE:
        model.conv1[0].stride = (1, 1)
        model.maxpool = nn.Identity()
    result: nn.Module = model
    return result


def efficientnet(
    shape: tuple[int, ...], classes: int, *, width: int, depth: int, activation: str
) -> nn.Module:
    """Build timm's EfficientNet (Tan & Le 2019, arXiv 1905.11946), scaled relative to B0.

    ``width`` / 32 multiplies all channels, ``depth`` / 16 the blocks of each of the seven stages.
    timm rounds channels to multiples of 8 and blocks up, so there are at least 7 blocks. The stem
    keeps the resolution of images of at most 64 pixels and halves that of larger ones, as in B0.
    """
    model = _timm().models.efficientnet._gen_efficientnet(
        "efficientnet_b0",
        channel_multiplier=width / 32,
        depth_multiplier=depth / 16,
        in_chans=shape[0],
        num_classes=classes,
        act_layer=activation,
    )
    if max(shape[1:]) <= _SMALL_IMAGE:
        model.conv_stem.stride = (1, 1)
    result: nn.Module = model
    return result


def by_name(name: str, shape: tuple[int, ...], classes: int, kwargs: dict[str, Any]) -> nn.Module:
    """Build any untrained timm model.

    Raises:
        PointError: there is no such model, or it rejects the keyword arguments.
    """
    timm = _timm()
    if not timm.is_model(name):
        near = (
            ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:5]) or "see timm.list_models()"
        )
        raise PointError(f"model.family: timm has no model {name!r}; near it: {near}")
    given = {"in_chans": shape[0], "num_classes": classes, **kwargs}
    try:
        model: nn.Module = timm.create_model(name, pretrained=False, **given)
    except Exception as error:
        raise PointError(f"model.kwargs: timm's {name} refuses {kwargs}: {error}") from None
    return model
