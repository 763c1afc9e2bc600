"""Quantised weights with the straight-through estimator (Bengio et al. 2013, arXiv 1308.3432)."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from flexhpc.models.reparameterization import Reparameterization, matrices

_STARTS_AT_ZERO = 1e-4


class Quantised(Reparameterization):
    """A network with every matrix entry rounded to the nearest of 2^bits values (k + 1/2) s.

    Vectors are not rounded. k ranges from -2^(bits-1) to 2^(bits-1) - 1, so zero is not a value.
    The step s of each matrix is fixed when the network is created: a trained step would store
    information that the number of bits does not include. The underlying real weights are trained;
    the gradient of the rounding is taken to be 1, also outside of the range of values.

    Args:
        network: an initialised network; its parameters are trained.
        bits: bits per weight.
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
        """Return the rounded matrices; their gradient passes to the real weights unchanged."""
        real = [self.network.get_parameter(name) for name in self.names]
        # real - real is exactly 0, so the rounded value stays exact
        return {
            name: rounded + (weight - weight.detach())
            for name, weight, rounded in zip(self.names, real, self._rounded(real), strict=True)
        }

    def quantised_weights(self) -> dict[str, Tensor]:
        """Return the rounded matrices by name, for inspection."""
        rounded = self._rounded(self.network.get_parameter(name) for name in self.names)
        return dict(zip(self.names, rounded, strict=True))

    def _rounded(self, weights: Iterable[Tensor]) -> list[Tensor]:
        half = 2 ** (self.bits - 1)
        return [
            ((weight.detach() / step).floor().clamp(-half, half - 1) + 0.5) * step
            for weight, step in zip(weights, self.steps.unbind(), strict=True)
        ]


def _step(weight: Tensor, inputs: int, bits: int) -> float:
    """Return s: 2^bits steps span -r to r, with r = (1.3 + bits / 3) rms of the weights.

    For 1 to 8 bits this is within 3 % of the range with the least error for Gaussian weights (Max
    1960, table II). A matrix that is initialised at or close to zero (the head of a mixer) uses 1 /
    sqrt(inputs) for its rms.
    """
    rms = float(weight.detach().double().square().mean().sqrt())
    if rms < _STARTS_AT_ZERO:
        rms = 1 / math.sqrt(inputs)
    return math.ldexp((1.3 + bits / 3) * rms, 1 - bits)
