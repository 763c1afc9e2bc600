"""Build the network of a point; count its trained parameters and their bits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import nn

from flexhpc.config.sections.custom import CustomModel
from flexhpc.config.sections.model import HuggingFaceModel, Network
from flexhpc.custom.time_limit import time_limit_as_point_error
from flexhpc.errors import PointError, one_line_message
from flexhpc.models.adaptation import PartlyTrained, check_gradients, head_parameters
from flexhpc.models.families import Shape, build_family
from flexhpc.models.pretrained import check_unchanged, load_pretrained
from flexhpc.models.reparameterizations import (
    LowRank,
    Quantised,
    Subspace,
    check_subspace_dims,
    matrix_shapes,
)
from flexhpc.models.scaling import resolve_size, scaled_shape


def build(model: Network, shape: Shape, classes: int) -> nn.Module:
    """Build a network, initialised from torch's global random state; load pretrained weights.

    The weights are drawn before the random numbers of adapters or of a reparameterization. They
    therefore equal the weights of a network that is built with the same seed and without these.

    Args:
        model: the ``model`` section.
        shape: shape of one sample: (channels, height, width), (features,), or (length,) for tokens.
        classes: number of outputs.

    Raises:
        PointError: the network does not accept samples of this shape, cannot be scaled, adapted or
            reparameterized as requested, or does not match the pretrained weights; or its files
            have changed since the spec was read.
    """
    check_unchanged(model)
    network = _build_without_reparameterization(model, shape, classes)
    if model.pretrained is not None and not isinstance(model, HuggingFaceModel):
        load_pretrained(network, model, head_parameters(network, model, classes))
    if model.adapt is not None:
        return PartlyTrained(network, model, head_parameters(network, model, classes))
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


class ParameterCounts(NamedTuple):
    """Numbers of parameters of a network.

    Attributes:
        trained: number of trained parameters. With ``subspace``, these are the coordinates in the
            subspace; with ``low_rank``, the entries of the low-rank factors, whose number can
            exceed the number of parameters of the network.
        total: number of parameters of the network, including frozen parameters and adapters.
        bits: number of bits of the trained parameters. A parameter has 64 bits if the precision is
            fp64, and 32 bits otherwise, because training in bf16 keeps the weights in fp32. With
            ``quantised``, each entry of a trained matrix has ``quantised.bits`` bits; vectors are
            not quantised.
    """

    trained: int
    total: int
    bits: int


def count_parameters(
    model: Network, shape: Shape, classes: int, *, precision: str = "fp32", device: str = "meta"
) -> ParameterCounts:
    """Return the exact numbers of parameters of a network.

    The network is built and run once, so that an unsupported shape is detected here and not in the
    middle of a sweep. Pretrained weights are loaded only for ``hf:PATH``, because they determine
    the head.

    Args:
        model: the ``model`` section.
        shape: shape of one sample.
        classes: number of outputs.
        precision: ``training.precision``.
        device: device on which the network runs. "meta" allocates no weights, but torch then
            imports its compiler, which takes as long as importing torch. Use "cpu" for a network
            that is about to be trained. Custom networks and networks with ``adapt`` always run on
            the CPU.

    Raises:
        PointError: the network does not accept samples of this shape, does not return ``classes``
            logits for each sample (a causal language model may return more), or cannot be scaled,
            adapted or reparameterized as requested.
    """
    if isinstance(model, CustomModel | HuggingFaceModel) or model.adapt is not None:
        device = "cpu"  # their code may not support "meta"
    # The random state of torch is not changed.
    with torch.random.fork_rng([]), torch.device(device), _errors_as_point_error(model, shape):
        network = _build_without_reparameterization(model, shape, classes).eval()
        if model.adapt is not None:
            head = head_parameters(network, model, classes)
            network = PartlyTrained(network, model, head).eval()
            check_gradients(network, network(torch.zeros(2, *shape)))
        with torch.no_grad():
            logits = network(torch.zeros(2, *shape))
    if isinstance(model, HuggingFaceModel) and model.predicts_tokens:
        classes = max(classes, logits.shape[1])  # its vocabulary may contain further tokens
    if logits.shape[:2] != (2, classes):
        raise PointError(
            f"model: {model.family} returns outputs of shape {tuple(logits.shape[1:])}, "
            f"not {classes} logits per sample"
        )
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    shapes = matrix_shapes(network).values()
    if model.subspace is not None:
        check_subspace_dims(model.subspace.dims, trained)
        trained = model.subspace.dims
    if model.low_rank is not None:
        trained = sum(min(model.low_rank.rank, *shape) * sum(shape) for shape in shapes)
    bits_each = 64 if precision == "fp64" else 32
    bits = trained * bits_each
    if model.quantised is not None:
        rounded = sum(outputs * inputs for outputs, inputs in shapes)
        bits = rounded * model.quantised.bits + (trained - rounded) * bits_each
    total = sum(p.numel() for p in network.parameters())
    return ParameterCounts(trained=trained, total=total, bits=bits)


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
