"""Extreme Ritz values of the Hessian of the loss, to detect negative curvature.

Lanczos' method is used because its Ritz values can be used even before it converges. Each Ritz
value equals v^T H v for a unit vector v, so it is not below the smallest eigenvalue of H. A
negative Ritz value therefore proves negative curvature; a non-negative Ritz value proves nothing.
scipy's eigsh (ARPACK) and curvlinops return no value if they do not converge, and curvlinops cannot
sum over processes in a fixed order.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from flexhpc.errors import PointError, one_line_message
from flexhpc.training.device_inputs import DeviceInputs, chunk_size
from flexhpc.training.group import Partition
from flexhpc.training.losses import cross_entropy

_CHUNK = 256
_TOLERANCE = 1e-6
"""Lanczos' method has converged if both residuals are <= ``this value * max(|Ritz value|)``."""
_INVARIANCE = 1e-13


@dataclass(frozen=True, kw_only=True)
class RitzValues:
    """Extreme Ritz values of a symmetric operator, found with Lanczos' method.

    Attributes:
        products: number of matrix-vector products that were computed.
        min: smallest Ritz value; except for rounding, it is not below the smallest eigenvalue.
        max: largest Ritz value; except for rounding, it is not above the largest eigenvalue.
        residual_min: ``|Av - min v|``, where A is the operator and v the unit Ritz vector of
            ``min``. There is an eigenvalue within this distance of ``min``.
        residual_max: the same for ``max``.

    If a matrix-vector product is not finite, all attributes except ``products`` are nan.
    """

    products: int
    min: float = math.nan
    max: float = math.nan
    residual_min: float = math.nan
    residual_max: float = math.nan

    def has_negative_min(self, tolerance: float) -> bool:
        """Return whether ``min`` is below ``-tolerance * max``."""
        return self.min < -tolerance * self.max


def lanczos(multiply: Callable[[Tensor], Tensor], start: Tensor, max_products: int) -> RitzValues:
    """Find the extreme Ritz values of a symmetric operator.

    This is Lanczos' method with full reorthogonalisation, twice per step (Parlett 1998, The
    Symmetric Eigenvalue Problem, sections 6.9 and 13.8). It keeps up to ``max_products``
    vectors in memory. It stops early if the residuals of both Ritz values are small, if the vectors
    span an invariant subspace, or if a product is not finite.

    Args:
        multiply: the operator, float64 (n,) -> (n,).
        start: start vector, float64 (n,), not zero. It should be random, so that it has a component
            along every eigenvector.
        max_products: maximum number of calls of ``multiply``.
    """
    limit = min(max_products, len(start))
    basis = start.new_empty((limit, len(start)))
    vector = start / start.norm()
    diagonal: list[float] = []
    off_diagonal: list[float] = []
    next_check = 1
    while True:
        count = len(diagonal)
        basis[count] = vector
        image = multiply(vector)
        diagonal.append(float(vector @ image))
        for _ in range(2):
            image = image - basis[: count + 1].T @ (basis[: count + 1] @ image)
        count, norm = count + 1, float(image.norm())
        if not math.isfinite(diagonal[-1] + norm):
            return RitzValues(products=count)
        scale = max(*map(abs, diagonal), *off_diagonal, norm)
        is_last = count == limit or norm <= _INVARIANCE * scale
        if is_last or count == next_check:
            ritz = _extreme_ritz(diagonal, off_diagonal, norm)
            size = max(abs(ritz.min), abs(ritz.max))
            if is_last or max(ritz.residual_min, ritz.residual_max) <= _TOLERANCE * size:
                return ritz
            next_check = count + 1 + count // 16
        off_diagonal.append(norm)
        vector = image / norm


def _extreme_ritz(
    diagonal: Sequence[float], off_diagonal: Sequence[float], next_off_diagonal: float
) -> RitzValues:
    """Return the extreme eigenvalues of Lanczos' tridiagonal matrix, and their residuals.

    Args:
        diagonal, off_diagonal: elements of the matrix.
        next_off_diagonal: off-diagonal element that the next step would add; the residuals are
            proportional to it.
    """
    values: dict[str, float] = {}
    count = len(diagonal)
    for name, index in (("min", 0), ("max", count - 1)):
        eigenvalues, vectors = eigh_tridiagonal(
            diagonal, off_diagonal, select="i", select_range=(index, index)
        )
        values[name] = float(eigenvalues[0])
        values[f"residual_{name}"] = next_off_diagonal * abs(float(vectors[-1, 0]))
    return RitzValues(products=count, **values)


def multiply_hessian(
    loss_of: Callable[[Tensor], Tensor],
    parameters: Sequence[Tensor],
    chunks: Sequence[Tensor],
    vector: Tensor,
) -> Tensor:
    """Return the Hessian-vector product of the loss summed over all chunks, 1-D.

    The product is computed with double backward. Only the autograd graph of one chunk is in memory
    at a time.

    Args:
        loss_of: function that returns the loss of a chunk as a scalar tensor.
        parameters: leaf tensors; their ``grad`` is None afterwards.
        chunks: tensors with which ``loss_of`` is called, one at a time.
        vector: 1-D, with one element for each element of the parameters, in the same order.
    """
    sizes = [p.numel() for p in parameters]
    pieces = [v.view_as(p) for v, p in zip(vector.split(sizes), parameters, strict=True)]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    for chunk in chunks:
        gradients = torch.autograd.grad(
            loss_of(chunk), parameters, create_graph=True, materialize_grads=True
        )
        # Gradients that need no grad are constant, for example those of an unused parameter.
        pairs = [(g, v) for g, v in zip(gradients, pieces, strict=True) if g.requires_grad]
        if pairs:
            # autograd.grad would silently skip a function that can be differentiated only once,
            # since it runs only the functions that lead to its inputs.
            outputs, directions = zip(*pairs, strict=True)
            torch.autograd.backward(outputs, directions)
    products = [p.grad for p in parameters if p.grad is not None]
    for parameter in parameters:
        parameter.grad = None
    return torch.cat([p.reshape(-1) for p in products])


def hessian_ritz(
    model: nn.Module,
    inputs: Tensor | DeviceInputs,
    labels: Tensor,
    partition: Partition,
    max_products: int,
    seed: int,
) -> RitzValues:
    """Find the extreme Ritz values of the Hessian of the mean cross-entropy (collective call).

    The computation is in float64 and eval mode on a copy of the model. A Hessian-vector product
    takes about as long as three gradients over all samples. Up to ``max_products`` float64 vectors,
    each with one element per parameter, are kept in memory.

    Args:
        model: trained model; its frozen parameters are treated as constants.
        inputs: inputs of all samples, (n, ...).
        labels: int64 (n,), or (n, length) for sequences.
        partition: division of the samples into parts.
        max_products: maximum number of Hessian-vector products.
        seed: seed of the random start vector.

    Raises:
        PointError: an operation of the model cannot be differentiated twice.
        PeerLost: another process of the group is lost.
    """
    model = copy.deepcopy(model).double().eval()
    parameters = [p for p in model.parameters() if p.requires_grad]
    count = sum(p.numel() for p in parameters)
    parts = torch.arange(len(labels), device=labels.device).tensor_split(partition.n_parts)
    chunk = chunk_size(inputs.shape[1:], _CHUNK)

    def loss_of(ids: Tensor) -> Tensor:
        logits = model(inputs[ids].double())
        return cross_entropy(logits, labels[ids], reduction="sum") / len(labels)

    def hessian_product(vector: Tensor) -> Tensor:
        terms = []
        for part in partition.local_parts:
            chunks = parts[part].split(chunk) if len(parts[part]) else ()
            terms.append(multiply_hessian(loss_of, parameters, chunks, vector))
        return partition.sum_parts(terms, zero=torch.zeros_like(vector))

    start = torch.from_numpy(np.random.default_rng(seed).standard_normal(count)).to(labels.device)
    try:
        # Fused attention kernels have no second derivative.
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            return lanczos(hessian_product, start, max_products)
    except RuntimeError as error:
        message = one_line_message(error)
        if "derivative for" not in message and "differentiate twice" not in message:
            raise
        raise PointError(
            "training.gates.curvature: needs second derivatives, but an operation of this network "
            f"cannot be differentiated twice ({message}); set its mode to off"
        ) from None
