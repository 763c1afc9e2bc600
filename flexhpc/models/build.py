"""From the ``model`` section of a point to a network that can be trained."""

from __future__ import annotations

from torch import nn

from flexhpc.models.families import Shape, network
from flexhpc.models.scaling import Resize, concrete, resolution
from flexhpc.spec.sections import Model


def build(model: Model, shape: Shape, classes: int) -> nn.Module:
    """Build an untrained network, initialised from torch's global random state.

    Args:
        model: the family and its sizes.
        shape: of one sample: (channels, height, width), or (features,).
        classes: number of outputs.

    Raises:
        PointError: the network cannot take samples of this shape, or be scaled as asked.
    """
    seen = resolution(model, shape)
    inner = network(concrete(model, shape, classes), seen, classes)
    return inner if seen == shape else nn.Sequential(Resize(seen[1:]), inner)
