"""Families that timm provides: vit, resnet, and any other model by its name."""

from __future__ import annotations

from typing import Any

from torch import nn

from flexhpc.errors import PointError

_SMALL_IMAGE = 64


def _timm() -> Any:
    try:
        import timm
    except Exception as error:  # a torchvision built for another torch fails in its own ways
        what = " ".join(str(error).split())
        raise PointError(
            f"model.family: this family needs timm and torchvision, which do not work here: {what}"
        ) from None
    return timm


def vit(
    shape: tuple[int, ...], classes: int, *, width: int, depth: int, heads: int, patch: int,
    activation: str,
) -> nn.Module:  # fmt: skip
    """timm's VisionTransformer on images of ``shape`` (channels, height, width)."""
    timm = _timm()
    if any(side % patch for side in shape[1:]):
        raise PointError(f"model.patch: {patch} does not divide the {shape[1]}x{shape[2]} images")
    model: nn.Module = timm.models.VisionTransformer(
        img_size=shape[1:],
        patch_size=patch,
        in_chans=shape[0],
        num_classes=classes,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        act_layer=timm.layers.get_act_layer(activation),
    )
    return model


def resnet(
    shape: tuple[int, ...], classes: int, *, width: int, depth: int, activation: str
) -> nn.Module:
    """timm's ResNet: ``depth`` basic blocks over up to four stages of doubling channels.

    The stem is timm's "deep" one: three 3x3 convolutions. On images of at most 64 pixels it keeps
    the resolution, as is usual for CIFAR (He et al. 2016, section 4.2); larger ones are reduced
    four times, as for ImageNet.
    """
    timm = _timm()
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
    )
    for stage in range(stages, 4):
        setattr(model, f"layer{stage + 1}", nn.Identity())
    if max(shape[1:]) <= _SMALL_IMAGE:
        model.conv1[0].stride = (1, 1)
        model.maxpool = nn.Identity()
    result: nn.Module = model
    return result


def by_name(name: str, shape: tuple[int, ...], classes: int, kwargs: dict[str, Any]) -> nn.Module:
    """Any untrained timm model.

    Raises:
        PointError: there is no such model, or it refuses the keyword arguments.
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
