"""Training in a random subspace (Li et al. 2018, arXiv 1804.08838)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flexhpc.errors import PointError
from flexhpc.models.projections import PROJECTIONS
from flexhpc.models.reparameterization import Reparameterization


class Subspace(Reparameterization):
    """A network with theta = theta0 + P z for all flattened parameters; only z (dims,) is trained.

    theta0 are the initial weights, and z starts at zero. P is drawn from torch's global generator
    and never saved, because the same seed reproduces it.

    Args:
        network: the network, on the CPU; it is frozen in place.
        dims: length of z.
        projection: type of P, a key of ``PROJECTIONS``.

    Raises:
        PointError: see :func:`check_dims`; or P does not fit into memory.
    """

    def __init__(self, network: nn.Module, dims: int, projection: str) -> None:
        super().__init__(network)
        moved = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self.sizes = {name: p.numel() for name, p in moved.items()}
        check_dims(dims, total := sum(self.sizes.values()))
        network.requires_grad_(False)
        self.z = nn.Parameter(torch.zeros(dims))
        try:
            self.projection = PROJECTIONS[projection](total, dims)
        except (RuntimeError, MemoryError):
            raise PointError(
                f"model.subspace.projection: {projection} of {total} parameters x {dims} dims does "
                "not fit into memory; use kronecker or fastfood"
            ) from None

    def weights(self) -> dict[str, Tensor]:
        """Return theta0 + P z, split into the network's parameters."""
        pieces = self.projection(self.z).split(list(self.sizes.values()))
        frozen = {name: self.network.get_parameter(name) for name in self.sizes}
        return {
            name: own + piece.view_as(own)
            for (name, own), piece in zip(frozen.items(), pieces, strict=True)
        }


def check_dims(dims: int, parameters: int) -> None:
    """Raise PointError if a subspace has more dimensions than the network has parameters."""
    if dims > parameters:
        raise PointError(
            f"model.subspace.dims: {dims} is more than the network's {parameters} parameters; "
            f"use at most {parameters}"
        )
