"""Base of all reparameterizations: a network whose weights are computed from trained parameters."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.func import functional_call


class Reparameterization(nn.Module, ABC):
    """A network that runs with computed weights; its buffers (BatchNorm's) are used unchanged.

    Args:
        network: an initialised network; training starts from its parameters.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    @abstractmethod
    def weights(self) -> dict[str, Tensor]:
        """Return the computed weights by their names in the network."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Run the network with :meth:`weights`."""
        # Autocast applies to the network only: weights rounded to bf16 would leave the subspace.
        with torch.autocast(inputs.device.type, enabled=False):
            weights = self.weights()
        outputs: Tensor = functional_call(self.network, weights, (inputs,))
        return outputs


def matrices(network: nn.Module) -> dict[str, tuple[int, int]]:
    """Return (outputs, inputs) of every trainable parameter with two or more dimensions, by name.

    A kernel (out, in, height, width) is a matrix of (out, in x height x width). With three or more
    dimensions, leading dimensions of size 1 are dropped: the position embedding (1, n, width) of a
    vit is n x width.
    """
    return {
        name: _as_matrix(parameter.shape)
        for name, parameter in network.named_parameters()
        if parameter.requires_grad and parameter.dim() >= 2
    }


def _as_matrix(shape: torch.Size) -> tuple[int, int]:
    sizes = list(shape)
    while len(sizes) > 2 and sizes[0] == 1:
        del sizes[0]
    return sizes[0], math.prod(sizes[1:])
