"""What a network can learn with: its trained numbers and their bits, counted without weights."""

from __future__ import annotations

import torch
from torch import nn

from flexhpc.errors import PointError, one_line
from flexhpc.models import low_rank, subspace
from flexhpc.models.builder import plain_network
from flexhpc.models.families import Shape
from flexhpc.models.reparameterization import matrices
from flexhpc.spec.sections.model import Model


def count_parameters(model: Model, shape: Shape, classes: int) -> int:
    """Return the exact number of trained numbers, without allocating them.

    Those are d in a subspace, the entries of A and B with low rank, else all trainable parameters.
    The network is built and run once on torch's meta device, so that a shape which it cannot take
    is found here and not in the middle of a sweep.

    Raises:
        PointError: the network cannot take samples of this shape, or be scaled or reparameterized
            as asked.
    """
    return _trained(model, _on_meta(model, shape, classes))


def count_bits(model: Model, shape: Shape, classes: int, precision: str) -> int:
    """Return how many bits the trained numbers hold, without allocating them.

    A number holds 64 bits with ``precision`` fp64 and 32 otherwise (bf16 keeps its weights in
    fp32); a quantised weight holds ``bits``, its vectors as said.

    Args:
        model: as for :func:`count_parameters`.
        shape: of one sample.
        classes: number of outputs.
        precision: ``training.precision``.

    Raises:
        PointError: as :func:`count_parameters`.
    """
    network = _on_meta(model, shape, classes)
    trained, each = _trained(model, network), 64 if precision == "fp64" else 32
    if model.quantised is None:
        return trained * each
    rounded = sum(outputs * inputs for outputs, inputs in matrices(network).values())
    return rounded * model.quantised.bits + (trained - rounded) * each


def _trained(model: Model, network: nn.Module) -> int:
    own = sum(p.numel() for p in network.parameters() if p.requires_grad)
    if model.subspace is not None:
        subspace.check_dims(model.subspace.dims, own)
        return model.subspace.dims
    if model.low_rank is not None:
        return low_rank.trained_numbers(network, model.low_rank.rank)
    return own


def _on_meta(model: Model, shape: Shape, classes: int) -> nn.Module:
    """Build the network without its reparameterization, and see that it runs."""
    with torch.device("meta"):
        try:
            network = plain_network(model, shape, classes).eval()
            logits = network(torch.empty(2, *shape))
        except PointError:
            raise
        except Exception as error:
            what = one_line(error)
            raise PointError(f"model: {model.family} cannot take {shape} samples: {what}") from None
    if logits.shape != (2, classes):
        raise PointError(
            f"model: {model.family} gives outputs of shape {tuple(logits.shape[1:])}, "
            f"not {classes} logits per sample"
        )
    return network
