"""Build the network of a point; count its trained parameters and their bits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from flexhpc.config.sections.custom import CustomModel
from flexhpc.config.sections.model import Network
from flexhpc.custom.time_limit import time_limit_as_point_error
from flexhpc.errors import PointError, one_line_message
from flexhpc.models.families import Shape, build_family
from flexhpc.models.reparameterizations import (
    LowRank,
    Quantised,
    Subspace,
    check_subspace_dims,
    matrix_shapes,
)
from flexhpc.models.scaling import resolve_size, scaled_shape


def build(model: Network, shape: Shape, classes: int) -> nn.Module:
    """Build an untrained network, initialised from torch's global random state.

    The weights are drawn before the random numbers of a reparameterization. They therefore equal
    the weights of a network that is built with the same seed and without the reparameterization.

    Args:
        model: the ``model`` section.
        shape: shape of one sample: (channels, height, width), (features,), or (length,) for tokens.
        classes: number of outputs.

    Raises:
        PointError: the network does not accept samples of this shape, or cannot be scaled or
            reparameterized as requested.
    """
    network = _build_without_reparameterization(model, shape, classes)
    if model.subspace is not None:
        return Subspace(network, model.subspace.dims, model.subspace.projection)
    if model.low_rank is not None:
        return LowRank(network, model.low_rank.rank)
    if model.quantised is not None:
        return Quantised(network, model.quantised.bits)
    return network


def _build_without_reparameterization(model: Network, shape: Shape, classes: int) -> nn.Module:
    """Build a network; its first layer resizes images if ``model.scaling`` changes their size."""
    size = scaled_shape(model, shape)
    inner = build_family(resolve_size(model, shape, classes), size, classes)
    if size == shape:
        return inner
    return nn.Sequential(nn.Upsample(size[1:], mode="bilinear", align_corners=False), inner)


def count_parameters(model: Network, shape: Shape, classes: int, device: str = "meta") -> int:
    """Return the exact number of trained parameters.

    With ``subspace``, only the coordinates in the subspace are trained. With ``low_rank``, only the
    entries of the low-rank factors are trained, whose number can exceed the number of parameters of
    the network. Otherwise, all trainable parameters of the network are trained. The network is
    built and run once, so that an unsupported shape is detected here and not in the middle of a
    sweep.

    Args:
        model: the ``model`` section.
        shape: shape of one sample.
        classes: number of outputs.
        device: device on which the network runs; ignored for a custom network, which runs on the
            CPU. "meta" allocates no weights, but torch then imports its compiler, which takes as
            long as importing torch. Use "cpu" for a network that is about to be trained.

    Raises:
        PointError: the network does not accept samples of this shape, does not return ``classes``
            logits for each sample, or cannot be scaled or reparameterized as requested.
    """
    device = _counting_device(model, device)
    network = _build_for_count(model, shape, classes, device)
    with torch.device(device), torch.no_grad(), _errors_as_point_error(model, shape):
        logits = network(torch.zeros(2, *shape))
    if logits.shape[:2] != (2, classes):
        raise PointError(
            f"model: {model.family} returns outputs of shape {tuple(logits.shape[1:])}, "
            f"not {classes} logits per sample"
        )
    return _count_trained_parameters(model, network)


def count_bits(model: Network, shape: Shape, classes: int, precision: str) -> int:
    """Return the number of bits of the trained parameters.

    A parameter has 64 bits if ``precision`` is fp64, and 32 bits otherwise, because training in
    bf16 keeps the weights in fp32. With ``quantised``, each entry of a trained matrix has
    ``quantised.bits`` bits; vectors are not quantised.

    Args:
        model: the ``model`` section.
        shape: shape of one sample.
        classes: number of outputs.
        precision: ``training.precision``.

    Raises:
        PointError: the network cannot be built for samples of this shape, or cannot be scaled or
            reparameterized as requested.
    """
    network = _build_for_count(model, shape, classes, _counting_device(model, "meta"))
    trained, bits = _count_trained_parameters(model, network), 64 if precision == "fp64" else 32
    if model.quantised is None:
        return trained * bits
    rounded = sum(outputs * inputs for outputs, inputs in matrix_shapes(network).values())
    return rounded * model.quantised.bits + (trained - rounded) * bits


def _counting_device(model: Network, device: str) -> str:
    """Return ``device``, or "cpu" for a custom network, whose code may not support "meta"."""
    return "cpu" if isinstance(model, CustomModel) else device


def _count_trained_parameters(model: Network, network: nn.Module) -> int:
    """Count the trained parameters; ``network`` is built without its reparameterization."""
    count = sum(p.numel() for p in network.parameters() if p.requires_grad)
    if model.subspace is not None:
        check_subspace_dims(model.subspace.dims, count)
        return model.subspace.dims
    if model.low_rank is not None:
        shapes = matrix_shapes(network).values()
        return sum(min(model.low_rank.rank, *shape) * sum(shape) for shape in shapes)
    return count


def _build_for_count(model: Network, shape: Shape, classes: int, device: str) -> nn.Module:
    """Build the network without its reparameterization, in eval mode.

    torch's random state is not changed.
    """
    with torch.random.fork_rng([]), torch.device(device), _errors_as_point_error(model, shape):
        return _build_without_reparameterization(model, shape, classes).eval()


@contextlib.contextmanager
def _errors_as_point_error(model: Network, shape: Shape) -> Iterator[None]:
    """Convert an exception in the ``with`` block to a PointError about the shape of the samples."""
    try:
        with time_limit_as_point_error():
            yield
    except PointError:
        raise
    except Exception as error:
        raise PointError(
            f"model: {model.family} does not accept samples of shape {shape}: "
            f"{one_line_message(error)}"
        ) from None
