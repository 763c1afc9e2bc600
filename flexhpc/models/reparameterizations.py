"""Reparameterizations: the weights of a network are computed from other, trained parameters."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.func import functional_call

from flexhpc.errors import PointError
from flexhpc.models.projections import PROJECTIONS

_NEAR_ZERO = 1e-4


class Reparameterization(nn.Module, ABC):
    """Base class of networks whose weights are computed from other, trained parameters.

    Buffers, such as BatchNorm statistics, remain buffers of the network.

    Args:
        network: an initialised network; training starts from its parameters.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    @abstractmethod
    def weights(self) -> dict[str, Tensor]:
        """Return the computed weights, as a dict from the network's parameter name to a tensor."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the outputs of the network with the weights from :meth:`weights`."""
        # Autocast applies to the network only: weights rounded to bf16 would leave the subspace.
        with torch.autocast(inputs.device.type, enabled=False):
            weights = self.weights()
        outputs: Tensor = functional_call(self.network, weights, (inputs,))
        return outputs


class Subspace(Reparameterization):
    """A network with parameters theta = theta0 + P z; only z, of length ``dims``, is trained.

    This is training in a random subspace: Li et al. 2018, arXiv 1804.08838.

    theta is the vector of all trainable parameters of the network, and theta0 its initial value. z
    starts at zero. The random projection P is drawn from torch's global generator and not saved,
    because the same seed reproduces it.

    Args:
        network: network on the CPU; its parameters are frozen in place.
        dims: length of z.
        projection: type of P, a key of ``PROJECTIONS``.

    Raises:
        PointError: ``dims`` exceeds the number of parameters, or P does not fit into memory.
    """

    def __init__(self, network: nn.Module, dims: int, projection: str) -> None:
        super().__init__(network)
        trainable = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self.sizes = {name: p.numel() for name, p in trainable.items()}
        check_subspace_dims(dims, total := sum(self.sizes.values()))
        network.requires_grad_(False)
        self.z = nn.Parameter(torch.zeros(dims))
        try:
            self.projection = PROJECTIONS[projection](total, dims)
        except (RuntimeError, MemoryError):
            raise PointError(
                f"model.subspace.projection: {projection} with {total} parameters x {dims} dims "
                "does not fit into memory; use kronecker or fastfood"
            ) from None

    def weights(self) -> dict[str, Tensor]:
        """Return theta0 + P z as a dict from the network's parameter name to a tensor."""
        pieces = self.projection(self.z).split(list(self.sizes.values()))
        frozen = {name: self.network.get_parameter(name) for name in self.sizes}
        return {
            name: weight + piece.view_as(weight)
            for (name, weight), piece in zip(frozen.items(), pieces, strict=True)
        }


def check_subspace_dims(dims: int, parameters: int) -> None:
    """Raise PointError if a subspace has more dimensions than the network has parameters."""
    if dims > parameters:
        raise PointError(
            f"model.subspace.dims: {dims} exceeds the number of parameters of the network; "
            f"use at most {parameters}"
        )


class LowRank(Reparameterization):
    """A network in which every matrix W is replaced by W + B A; B and A are trained, W is frozen.

    LoRA: Hu et al. 2021, arXiv 2106.09685.

    A (rank, inputs) starts with entries from N(0, 1 / inputs). B (outputs, rank) starts at zero, so
    that all weights are initially unchanged. Vectors (biases and parameters of normalisation
    layers) are frozen as well.

    Args:
        network: network on the CPU; its parameters are frozen in place.
        rank: rank of B A; it is limited to the smaller dimension of each matrix.
    """

    def __init__(self, network: nn.Module, rank: int) -> None:
        super().__init__(network)
        self.shapes = matrix_shapes(network)
        network.requires_grad_(False)
        self.outer = nn.ParameterList()
        self.inner = nn.ParameterList()
        for outputs, inputs in self.shapes.values():
            size = min(rank, outputs, inputs)
            self.outer.append(nn.Parameter(torch.zeros(outputs, size)))
            self.inner.append(nn.Parameter(torch.randn(size, inputs) / math.sqrt(inputs)))

    def weights(self) -> dict[str, Tensor]:
        """Return a dict from the parameter name of every matrix W to the tensor W + B A."""
        frozen = [self.network.get_parameter(name) for name in self.shapes]
        return {
            name: weight + (b @ a).view_as(weight)
            for name, weight, b, a in zip(self.shapes, frozen, self.outer, self.inner, strict=True)
        }


class Quantised(Reparameterization):
    """A network in which every matrix entry is rounded to the nearest of 2^bits values (k + 1/2) s.

    Vectors are not rounded. k ranges from -2^(bits-1) to 2^(bits-1) - 1, so no value is zero.
    The step s of each matrix is fixed when the network is created, because a trained step would
    store information that is not included in the number of bits. The unrounded weights are
    trained with the straight-through estimator (Bengio et al. 2013, arXiv 1308.3432): the gradient
    of the rounding is replaced by 1, also for weights outside the range of the 2^bits values.

    Args:
        network: an initialised network; its parameters are trained.
        bits: bits per matrix entry.
    """

    steps: Tensor

    def __init__(self, network: nn.Module, bits: int) -> None:
        super().__init__(network)
        self.bits = bits
        shapes = matrix_shapes(network)
        self.names = list(shapes)
        steps = [
            _quantisation_step(network.get_parameter(name), inputs, bits)
            for name, (_, inputs) in shapes.items()
        ]
        self.register_buffer("steps", torch.tensor(steps), persistent=False)

    def weights(self) -> dict[str, Tensor]:
        """Return a dict from the parameter name of each matrix to the rounded matrix.

        Gradients pass unchanged from the rounded to the unrounded matrices.
        """
        half = 2 ** (self.bits - 1)
        result = {}
        for name, step in zip(self.names, self.steps.unbind(), strict=True):
            real = self.network.get_parameter(name)
            rounded = ((real.detach() / step).floor().clamp(-half, half - 1) + 0.5) * step
            # real - real is exactly 0, so the rounded value stays exact
            result[name] = rounded + (real - real.detach())
        return result


def _quantisation_step(weight: Tensor, inputs: int, bits: int) -> float:
    """Return the step s = 2 r / 2^bits, where r is (1.3 + bits / 3) times the rms of the weights.

    For 1 to 8 bits, r differs by at most 3 % from the value with the least squared rounding error
    for Gaussian weights (Max 1960, table II). If the initial weights are zero or close to zero,
    as in the head of a mixer, 1 / sqrt(inputs) is used instead of their rms.
    """
    rms = float(weight.detach().double().square().mean().sqrt())
    if rms < _NEAR_ZERO:
        rms = 1 / math.sqrt(inputs)
    return math.ldexp((1.3 + bits / 3) * rms, 1 - bits)


def matrix_shapes(network: nn.Module) -> dict[str, tuple[int, int]]:
    """Return a dict from the parameter name of every trainable matrix to (outputs, inputs).

    Parameters with more than two dimensions are reshaped to matrices: a kernel (out, in, height,
    width) becomes (out, in x height x width). Leading dimensions of size 1 are first removed, so
    that the position embedding (1, n, width) of a vit becomes (n, width).
    """
    return {
        name: _matrix_shape(parameter.shape)
        for name, parameter in network.named_parameters()
        if parameter.requires_grad and parameter.dim() >= 2
    }


def _matrix_shape(shape: torch.Size) -> tuple[int, int]:
    sizes = list(shape)
    while len(sizes) > 2 and sizes[0] == 1:
        del sizes[0]
    return sizes[0], math.prod(sizes[1:])
