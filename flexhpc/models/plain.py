"""The plainly written families: linear, mlp and cnn."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor, nn

ACTIVATIONS: dict[str, tuple[Callable[[], nn.Module], float]] = {
    "relu": (nn.ReLU, math.sqrt(2.0)),
    "leaky_relu": (lambda: nn.LeakyReLU(0.01), math.sqrt(2.0 / (1 + 0.01**2))),
    "tanh": (nn.Tanh, 5.0 / 3.0),
    "identity": (nn.Identity, 1.0),
    "gelu": (nn.GELU, math.sqrt(2.0)),
}
"""Per activation: its module, and the gain that keeps the variance of a signal at initialisation
(He et al. 2015, arXiv 1502.01852, and torch.nn.init.calculate_gain; for GELU the gain of ReLU)."""


def initialise(layer: nn.Linear | nn.Conv2d, gain: float) -> None:
    """Draw weights from N(0, gain^2 / fan_in) and set the bias to zero."""
    fan_in = layer.weight[0].numel()
    nn.init.normal_(layer.weight, std=gain / math.sqrt(fan_in))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def linear(features: int, classes: int, *, bias: bool) -> nn.Module:
    """One layer: (n, features or image) -> (n, classes)."""
    head = nn.Linear(features, classes, bias=bias)
    initialise(head, 1.0)
    return nn.Sequential(nn.Flatten(), head)


def mlp(
    features: int, classes: int, *, width: int, depth: int, activation: str, gain: float | None,
    bias: bool, norm: str,
) -> nn.Module:  # fmt: skip
    """``depth`` hidden layers of ``width`` units: (n, features or image) -> (n, classes).

    ``gain`` is that of the hidden layers, None for the activation's; the head's is 1.
    """
    make_activation, own_gain = ACTIVATIONS[activation]
    layers: list[nn.Module] = [nn.Flatten()]
    for level in range(depth):
        hidden = nn.Linear(features if level == 0 else width, width, bias=bias)
        initialise(hidden, own_gain if gain is None else gain)
        layers += [hidden, *_norm1d(norm, width), make_activation()]
    head = nn.Linear(width if depth else features, classes, bias=bias)
    initialise(head, 1.0)
    return nn.Sequential(*layers, head)


class Cnn(nn.Module):
    """``depth`` convolutions of stride 2, then global average pooling and a linear head.

    The first convolution has ``width`` output channels, each further one twice as many as the one
    before: (n, channels, height, width) -> (n, classes). Kernels are ``kernel`` pixels wide (odd)
    and padded by ``kernel // 2``, so that each halves the sides, rounded up. ``gain`` is that of
    the convolutions, None for the activation's; the head's is 1.
    """

    def __init__(
        self, channels: int, classes: int, *, width: int, depth: int, kernel: int, activation: str,
        gain: float | None, bias: bool, norm: str,
    ) -> None:  # fmt: skip
        super().__init__()
        make_activation, own_gain = ACTIVATIONS[activation]
        layers: list[nn.Module] = []
        for level in range(depth):
            out = width * 2**level
            conv = nn.Conv2d(channels, out, kernel, stride=2, padding=kernel // 2, bias=bias)
            initialise(conv, own_gain if gain is None else gain)
            layers += [conv, *_norm2d(norm, out), make_activation()]
            channels = out
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(channels, classes, bias=bias)
        initialise(self.head, 1.0)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (n, classes)."""
        logits: Tensor = self.head(self.body(images).mean(dim=(2, 3)))
        return logits


def _norm1d(norm: str, width: int) -> list[nn.Module]:
    if norm == "none":
        return []
    return [nn.BatchNorm1d(width) if norm == "batch" else nn.LayerNorm(width)]


def _norm2d(norm: str, channels: int) -> list[nn.Module]:
    if norm == "none":
        return []
    return [nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(1, channels)]
