"""Low-rank changes of frozen matrices (LoRA, Hu et al. 2021, arXiv 2106.09685)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from flexhpc.models.reparameterization import Reparameterization, matrices


class LowRank(Reparameterization):
    """Every matrix W becomes W + B A, where B and A are trained and W is not.

    B (outputs, rank) starts at zero, A (rank, inputs) with entries from N(0, 1 / inputs), so the
    network starts as it was initialised. Vectors (biases, norms) stay frozen as well.

    Args:
        network: on the CPU; frozen by this.
        rank: of B A; the smaller side of a matrix where that is less.
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
    """Return the number of entries of all B and A; it can exceed that of the matrices."""
    shapes = matrices(network).values()
    return sum(min(rank, *shape) * sum(shape) for shape in shapes)
