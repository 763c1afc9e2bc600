"""The networks of the recipes, with the initialisation that torch and timm give them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

Words = Mapping[str, Any]
Shape = tuple[int, ...]

_ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
}


def network(model: Words, shape: Shape, classes: int) -> nn.Module:
    """Return an untrained network: (n, *shape) -> (n, classes)."""
    return _BUILDERS[model["family"]](model, shape, classes)


def _linear(model: Words, shape: Shape, classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), classes))


def _mlp(model: Words, shape: Shape, classes: int) -> nn.Module:
    activation = _ACTIVATIONS[model.get("activation", "relu")]
    layers: list[nn.Module] = [nn.Flatten()]
    features = math.prod(shape)
    for _ in range(model["depth"]):
        layers += [nn.Linear(features, model["width"]), activation()]
        features = model["width"]
    return nn.Sequential(*layers, nn.Linear(features, classes))


def _cnn(model: Words, shape: Shape, classes: int) -> nn.Module:
    activation = _ACTIVATIONS[model.get("activation", "relu")]
    layers: list[nn.Module] = []
    channels, out = shape[0], model["width"]
    for _ in range(model["depth"]):
        layers += [nn.Conv2d(channels, out, 3, stride=2, padding=1), activation()]
        channels, out = out, 2 * out
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)
    )


def _vit(model: Words, shape: Shape, classes: int) -> nn.Module:
    from timm.models import VisionTransformer

    vit: nn.Module = VisionTransformer(
        img_size=shape[1],
        patch_size=model["patch"],
        in_chans=shape[0],
        num_classes=classes,
        embed_dim=model["width"],
        depth=model["depth"],
        num_heads=model["heads"],
    )
    return vit


def _mixer(model: Words, shape: Shape, classes: int) -> nn.Module:
    from timm.models import MlpMixer

    mixer: nn.Module = MlpMixer(
        img_size=shape[1],
        patch_size=model["patch"],
        in_chans=shape[0],
        num_classes=classes,
        embed_dim=model["width"],
        num_blocks=model["depth"],
    )
    return mixer


def _resnet(model: Words, shape: Shape, classes: int) -> nn.Module:
    """Two stages of basic blocks behind a stem of three 3x3 convolutions.

    Images are small, so that the stem keeps their size, as is usual for CIFAR.
    """
    from timm.models.resnet import BasicBlock, ResNet

    width, depth = model["width"], model["depth"]
    assert depth == 2, "one block in each of two stages"
    block: Any = BasicBlock
    resnet: Any = ResNet(
        block,
        (1, 1),
        channels=(width, 2 * width),
        in_chans=shape[0],
        num_classes=classes,
        stem_type="deep",
        stem_width=width // 2,
    )
    resnet.conv1[0].stride = (1, 1)
    resnet.maxpool = nn.Identity()
    resnet.layer3 = resnet.layer4 = nn.Identity()
    net: nn.Module = resnet
    return net


_BUILDERS: Mapping[str, Callable[[Words, Shape, int], nn.Module]] = {
    "linear": _linear,
    "mlp": _mlp,
    "cnn": _cnn,
    "vit": _vit,
    "mixer": _mixer,
    "resnet": _resnet,
}
