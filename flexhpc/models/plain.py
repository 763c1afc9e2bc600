"""Families without timm: linear, mlp and cnn."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from torch import nn

from flexhpc.models.initialise import Draw

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.01),
    "tanh": nn.Tanh,
    "identity": nn.Identity,
    "gelu": nn.GELU,
}
"""Module of each activation."""


def linear(features: int, classes: int, *, bias: bool, draw: Draw) -> nn.Module:
    """Build one linear layer: (n, features or image) -> (n, classes)."""
    head = nn.Linear(features, classes, bias=bias)
    draw(head, True)
    return nn.Sequential(nn.Flatten(), head)


def mlp(
    features: int, classes: int, *, width: int, depth: int, activation: str, bias: bool, norm: str,
    draw: Draw,
) -> nn.Module:  # fmt: skip
    """Build ``depth`` hidden layers of ``width`` units: (n, features or image) -> (n, classes)."""
    make_activation = ACTIVATIONS[activation]
    layers: list[nn.Module] = [nn.Flatten()]
    for level in range(depth):
        hidden = nn.Linear(features if level == 0 else width, width, bias=bias)
        draw(hidden, False)
        layers += [hidden, *_norm1d(norm, width), make_activation()]
    head = nn.Linear(width if depth else features, classes, bias=bias)
    draw(head, True)
    return nn.Sequential(*layers, head)


def cnn(
    channels: int, classes: int, *, width: int, depth: int, kernel: int, activation: str,
    bias: bool, norm: str, draw: Draw,
) -> nn.Module:  # fmt: skip
    """Build ``depth`` convolutions of stride 2, then global average pooling and a linear head.

    The first convolution has ``width`` output channels, each following one twice as many as the
    previous one: (n, channels, height, width) -> (n, classes). Kernels are ``kernel`` pixels wide
    (odd) and padded by ``kernel // 2``, so that each convolution halves the sides, rounded up.
    """
    make_activation = ACTIVATIONS[activation]
    layers: list[nn.Module] = []
    for level in range(depth):
        out = width * 2**level
        conv = nn.Conv2d(channels, out, kernel, stride=2, padding=kernel // 2, bias=bias)
        draw(conv, False)
        layers += [conv, *_norm2d(norm, out), make_activation()]
        channels = out
    head = nn.Linear(channels, classes, bias=bias)
    draw(head, True)
    parts = {
        "body": nn.Sequential(*layers), "pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(),
        "head": head,
    }  # fmt: skip
    return nn.Sequential(OrderedDict(parts))


def _norm1d(norm: str, width: int) -> list[nn.Module]:
    if norm == "none":
        return []
    return [nn.BatchNorm1d(width) if norm == "batch" else nn.LayerNorm(width)]


def _norm2d(norm: str, channels: int) -> list[nn.Module]:
    if norm == "none":
        return []
    return [nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(1, channels)]
