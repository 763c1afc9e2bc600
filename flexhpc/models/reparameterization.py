"""What all reparameterizations share: a network whose weights are computed from what is trained."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.func import functional_call


class Reparameterization(nn.Module, ABC):
    """A network that runs with other weights than its own; its buffers (BatchNorm's) stay its own.

    Args:
        network: initialised; its parameters are where the training starts.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    @abstractmethod
    def weights(self) -> dict[str, Tensor]:
        """Return the weights that differ from the network's own, by their names in the network."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Run the network with :meth:`weights`."""
        # autocast is for the network: rounded weights would not be in the subspace any more
        with torch.autocast(inputs.device.type, enabled=False):
            weights = self.weights()
        outputs: Tensor = functional_call(self.network, weights, (inputs,))
        return outputs


def matrices(network: nn.Module) -> dict[str, tuple[int, int]]:
    """Return (outputs, inputs) of every trainable parameter with two dimensions or more, by name.

    A kernel (out, in, height, width) is a matrix of (out, in x height x width). Of three dimensions
    or more, leading ones of size 1 are dropped: a vit's positions (1, n, width) are n x width.
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
