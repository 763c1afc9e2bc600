"""Count the trained parameters of a network and their bits, without allocating weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from flexhpc.config.sections.custom import CustomModel
from flexhpc.config.sections.model import Network
from flexhpc.custom.code import in_time
from flexhpc.errors import PointError, one_line
from flexhpc.models import low_rank, subspace
from flexhpc.models.builder import plain_network
from flexhpc.models.families import Shape
from flexhpc.models.reparameterization import matrices


def count_parameters(model: Network, shape: Shape, classes: int, device: str = "meta") -> int:
    """Return the exact number of trained parameters.

    These are the d coordinates of a subspace, the entries of A and B of a low-rank update, or else
    all trainable parameters. The network is built and run once, so that an unsupported shape is
    detected here and not in the middle of a sweep.

    Args:
        model: the ``model`` section.
        shape: shape of one sample.
        classes: number of outputs.
        device: device on which the network runs. "meta" allocates no weights, but makes torch
            import its compiler, which takes as long as importing torch; use "cpu" for a network
            that is about to be trained.

    Raises:
        PointError: the network does not accept samples of this shape, or cannot be scaled or
            reparameterized as requested.
    """
    device = _device(model, device)
    network = _built(model, shape, classes, device)
    with torch.device(device), torch.no_grad(), _telling(model, shape):
        logits = network(torch.zeros(2, *shape))
    if logits.shape[:2] != (2, classes):
        raise PointError(
            f"model: {model.family} gives outputs of shape {tuple(logits.shape[1:])}, "
            f"not {classes} logits per sample"
        )
    return _trained(model, network)


def count_bits(model: Network, shape: Shape, classes: int, precision: str) -> int:
    """Return the number of bits of the trained parameters, without allocating them.

    A parameter has 64 bits with ``precision`` fp64 and 32 otherwise (bf16 keeps its weights in
    fp32). A quantised weight has ``bits``; vectors are not quantised.

    Args:
        model: as for :func:`count_parameters`.
        shape: shape of one sample.
        classes: number of outputs.
        precision: ``training.precision``.

    Raises:
        PointError: as for :func:`count_parameters`.
    """
    network = _built(model, shape, classes, _device(model, "meta"))
    trained, each = _trained(model, network), 64 if precision == "fp64" else 32
    if model.quantised is None:
        return trained * each
    rounded = sum(outputs * inputs for outputs, inputs in matrices(network).values())
    return rounded * model.quantised.bits + (trained - rounded) * each


def _device(model: Network, device: str) -> str:
    """Return the device on which to build a network: user code need not support "meta"."""
    return "cpu" if isinstance(model, CustomModel) else device


def _trained(model: Network, network: nn.Module) -> int:
    own = sum(p.numel() for p in network.parameters() if p.requires_grad)
    if model.subspace is not None:
        subspace.check_dims(model.subspace.dims, own)
        return model.subspace.dims
    if model.low_rank is not None:
        return low_rank.trained_numbers(network, model.low_rank.rank)
    return own


def _built(model: Network, shape: Shape, classes: int, device: str) -> nn.Module:
    """Build the network without its reparameterization, in eval mode."""
    with torch.random.fork_rng([]), torch.device(device), _telling(model, shape):
        return plain_network(model, shape, classes).eval()


@contextlib.contextmanager
def _telling(model: Network, shape: Shape) -> Iterator[None]:
    """Convert any exception to a PointError: the network does not accept the samples."""
    try:
        with in_time():
            yield
    except PointError:
        raise
    except Exception as error:
        what = one_line(error)
        raise PointError(f"model: {model.family} cannot take {shape} samples: {what}") from None
