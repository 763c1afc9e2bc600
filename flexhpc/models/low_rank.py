"""Low-rank updates of frozen matrices (LoRA, Hu et al. 2021, arXiv 2106.09685)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from flexhpc.models.reparameterization import Reparameterization, matrices


class LowRank(Reparameterization):
    """A network in which every matrix W is replaced by W + B A; B and A are trained, W is frozen.

    B (outputs, rank) starts at zero and A (rank, inputs) with entries from N(0, 1 / inputs), so the
    network initially equals the plain one. Vectors (biases, norms) are frozen as well.

    Args:
        network: the network, on the CPU; it is frozen in place.
        rank: rank of B A, limited to the smaller dimension of each matrix.
    """

    def __init__(self, network: nn.Module, rank: int) -> None:
        super().__init__(network)
        self.shapes = matrices(network)
        network.requires_grad_(False)
        self.outer = nn.ParameterList()
        self.inner = nn.ParameterList()
        for outputs, inputs in self.shapes.values():
            cut = min(rank, outputs, inputs)
            self.outer.append(nn.Parameter(torch.zeros(outputs, cut)))
            self.inner.append(nn.Parameter(torch.randn(cut, inputs) / math.sqrt(inputs)))

    def weights(self) -> dict[str, Tensor]:
        """Return W + B A for every matrix."""
        frozen = [self.network.get_parameter(name) for name in self.shapes]
        return {
            name: own + (b @ a).view_as(own)
            for name, own, b, a in zip(self.shapes, frozen, self.outer, self.inner, strict=True)
        }


def trained_numbers(network: nn.Module, rank: int) -> int:
    """Return the number of entries of all B and A, which can exceed that of the matrices."""
    shapes = matrices(network).values()
    return sum(min(rank, *shape) * sum(shape) for shape in shapes)
