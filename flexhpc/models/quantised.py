"""Quantised weights, trained straight through (Bengio et al. 2013, arXiv 1308.3432)."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from flexhpc.models.reparameterization import Reparameterization, matrices

_STARTS_AT_ZERO = 1e-4


class Quantised(Reparameterization):
    """Every matrix entry takes the nearest of 2^bits values (k + 1/2) s; vectors stay as they are.

    k runs from -2^(bits-1) to 2^(bits-1) - 1, so zero is no value. The step s is fixed per matrix
    when the network is made: were it to follow the training, it would hold trained information that
    no count of bits shows. What is trained are the real weights behind; the rounding's gradient is
    taken to be 1, also beyond the outermost value.

    Args:
        network: initialised; its own parameters are trained.
        bits: of a weight.
    """

    steps: Tensor

    def __init__(self, network: nn.Module, bits: int) -> None:
        super().__init__(network)
        self.bits = bits
        shapes = matrices(network)
        self.names = list(shapes)
        steps = [
            _step(network.get_parameter(name), inputs, bits) for name, (_, inputs) in shapes.items()
        ]
        self.register_buffer("steps", torch.tensor(steps), persistent=False)

    def weights(self) -> dict[str, Tensor]:
        """Return the rounded matrices; their gradient passes to the real ones unchanged."""
        real = [self.network.get_parameter(name) for name in self.names]
        # real - real is exactly 0, so the rounded value stays exact
        return {
            name: rounded + (weight - weight.detach())
            for name, weight, rounded in zip(self.names, real, self._rounded(real), strict=True)
        }

    def quantised_weights(self) -> dict[str, Tensor]:
        """Return the matrices as the network uses them, by name, for inspection."""
        rounded = self._rounded(self.network.get_parameter(name) for name in self.names)
        return dict(zip(self.names, rounded, strict=True))

    def _rounded(self, weights: Iterable[Tensor]) -> list[Tensor]:
        half = 2 ** (self.bits - 1)
        return [
            ((weight.detach() / step).floor().clamp(-half, half - 1) + 0.5) * step
            for weight, step in zip(weights, self.steps.unbind(), strict=True)
        ]


def _step(weight: Tensor, inputs: int, bits: int) -> float:
    """Return s: 2^bits steps reach from -r to r, with r = (1.3 + bits / 3) rms of the weights.

    From 1 to 8 bits that is within 3 % of the range with the least error for Gaussian weights (Max
    1960, table II). A matrix that starts at zero (the head of a mixer) or next to it takes
    1 / sqrt(inputs) for its rms.
    """
    rms = float(weight.detach().double().square().mean().sqrt())
    if rms < _STARTS_AT_ZERO:
        rms = 1 / math.sqrt(inputs)
    return math.ldexp((1.3 + bits / 3) * rms, 1 - bits)
