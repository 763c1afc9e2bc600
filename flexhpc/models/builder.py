"""Build a trainable network from the ``model`` section of a point."""

from __future__ import annotations

from torch import nn

from flexhpc.config.sections.model import Network
from flexhpc.models.families import Shape, network
from flexhpc.models.low_rank import LowRank
from flexhpc.models.quantised import Quantised
from flexhpc.models.scaling import Resize, concrete, resolution
from flexhpc.models.subspace import Subspace


def build(model: Network, shape: Shape, classes: int) -> nn.Module:
    """Build an untrained network, initialised from torch's global random state.

    With a reparameterization, the frozen weights are drawn first, so they equal those of the plain
    network with the same seed.

    Args:
        model: the family and its sizes.
        shape: shape of one sample: (channels, height, width), or (features,).
        classes: number of outputs.

    Raises:
        PointError: the network does not accept samples of this shape, or cannot be scaled or
            reparameterized as requested.
    """
    plain = plain_network(model, shape, classes)
    if model.subspace is not None:
        return Subspace(plain, model.subspace.dims, model.subspace.projection)
    if model.low_rank is not None:
        return LowRank(plain, model.low_rank.rank)
    if model.quantised is not None:
        return Quantised(plain, model.quantised.bits)
    return plain


def plain_network(model: Network, shape: Shape, classes: int) -> nn.Module:
    """Build the network without its reparameterization; see :func:`build`."""
    seen = resolution(model, shape)
    inner = network(concrete(model, shape, classes), seen, classes)
    return inner if seen == shape else nn.Sequential(Resize(seen[1:]), inner)
