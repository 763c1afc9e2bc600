"""Random projections P (rows x columns), implemented as modules that compute P z.

Columns have unit length: exactly in ``DenseProjection``, on average in the other classes. Random
numbers are drawn from torch's global generator when a projection is created, and stored in
non-persistent buffers, which are not part of the state_dict.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


class DenseProjection(nn.Module):
    """Dense projection: Gaussian entries, with columns scaled to unit length.

    See Li et al. 2018, arXiv 1804.08838.
    """

    matrix: Tensor

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        matrix = torch.randn(rows, columns)
        self.register_buffer("matrix", matrix.div_(matrix.norm(dim=0)), persistent=False)

    def forward(self, z: Tensor) -> Tensor:
        """Return the projection P z, shape (rows,), of ``z``, shape (columns,)."""
        return self.matrix.mv(z)


class SparseProjection(nn.Module):
    """Sparse projection: a fraction 1 / sqrt(rows) of the entries is +-rows^(-1/4), the others 0.

    This is a very sparse random projection (Li, Hastie & Church 2006, section 2) with s =
    sqrt(rows), scaled so that the columns have unit length on average.
    """

    row: Tensor
    column: Tensor
    value: Tensor

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.rows = rows
        index = _bernoulli_indices(rows * columns, 1 / math.sqrt(rows))
        sign = torch.randint(2, index.shape) * 2 - 1
        self.register_buffer("row", index // columns, persistent=False)
        self.register_buffer("column", index % columns, persistent=False)
        self.register_buffer("value", sign * rows**-0.25, persistent=False)

    def forward(self, z: Tensor) -> Tensor:
        """Return the projection P z, shape (rows,), of ``z``, shape (columns,)."""
        # index_add and index_select are the backward operations of each other, and torch has
        # deterministic kernels for both, but not for the product with a sparse tensor.
        terms = self.value * z.index_select(0, self.column)
        return terms.new_zeros(self.rows).index_add(0, self.row, terms)


class KroneckerProjection(nn.Module):
    """Kronecker projection: the Kronecker product of two Gaussian matrices, scaled and truncated.

    P is the Kronecker product of Q1 and Q2, divided by sqrt(rows) and truncated to rows x columns.
    Q1 and Q2 are ceil(sqrt(rows)) x ceil(sqrt(columns)) and have entries from N(0, 1). Columns of P
    have unit length on average (Lotfi et al. 2022, arXiv 2211.13609).
    """

    left: Tensor
    right: Tensor

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.rows = rows
        height, width = _ceil_sqrt(rows), _ceil_sqrt(columns)
        scale = rows**-0.25
        self.register_buffer("left", torch.randn(height, width) * scale, persistent=False)
        self.register_buffer("right", torch.randn(height, width) * scale, persistent=False)

    def forward(self, z: Tensor) -> Tensor:
        """Return the projection P z, shape (rows,), of ``z``, shape (columns,).

        It is computed as Q1 Z Q2^T / sqrt(rows), flattened and truncated. Z is ``z``, padded
        with zeros and reshaped to a square matrix in row-major order.
        """
        width = self.left.shape[1]
        square = functional.pad(z, (0, width * width - len(z))).view(width, width)
        return (self.left @ square @ self.right.T).flatten()[: self.rows]


class FastfoodProjection(nn.Module):
    """Fastfood projection: stacked blocks S H G Pi H B, scaled and truncated.

    See Le, Sarlos & Smola 2013, section 3. A block is n x n, where n is the number of columns
    rounded up to a power of two. H is the Walsh-Hadamard matrix and Pi a permutation. B, G and S
    are diagonal: B contains random signs and G contains Gaussian numbers. S contains random numbers
    with the distribution chi(n), divided by the norm of the diagonal of G, so that rows vary in
    length like the rows of a Gaussian matrix. The scale is 1 / sqrt(n * rows), so that columns have
    unit length on average.
    """

    sign: Tensor
    order: Tensor
    gauss: Tensor
    length: Tensor

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.rows = rows
        size = 1 << (columns - 1).bit_length()
        blocks = -(-rows // size)
        sign = torch.randint(2, (blocks, size)) * 2.0 - 1
        order = torch.rand(blocks, size).argsort(dim=1) + size * torch.arange(blocks)[:, None]
        gauss = torch.randn(blocks, size)
        chi = torch.distributions.Chi2(float(size)).sample((blocks, size)).sqrt()
        length = chi / gauss.norm(dim=1, keepdim=True) / math.sqrt(size * rows)
        self.register_buffer("sign", sign, persistent=False)
        self.register_buffer("order", order.flatten(), persistent=False)
        self.register_buffer("gauss", gauss, persistent=False)
        self.register_buffer("length", length, persistent=False)

    def forward(self, z: Tensor) -> Tensor:
        """Return the projection P z, shape (rows,), of ``z``, shape (columns,)."""
        mixed = walsh_hadamard(self.sign * functional.pad(z, (0, self.sign.shape[1] - len(z))))
        shuffled = mixed.flatten().index_select(0, self.order).view_as(mixed)
        return (self.length * walsh_hadamard(self.gauss * shuffled)).flatten()[: self.rows]


PROJECTIONS: dict[str, Callable[[int, int], nn.Module]] = {
    "dense": DenseProjection,
    "sparse": SparseProjection,
    "kronecker": KroneckerProjection,
    "fastfood": FastfoodProjection,
}


def walsh_hadamard(vectors: Tensor) -> Tensor:
    """Return H x for each row x of ``vectors`` (m, n), where n is a power of two.

    H is the Walsh-Hadamard matrix with entries +-1, in Hadamard order. Each of the log2(n) rounds
    of the fast transform replaces each pair of adjacent blocks by their sum and difference; the
    length of the blocks doubles from round to round.
    """
    size, half = vectors.shape[1], 1
    result = vectors
    while half < size:
        first, second = result.reshape(-1, 2, half).unbind(1)
        result = torch.stack((first + second, first - second), dim=1)
        half *= 2
    return result.reshape(vectors.shape)


def _bernoulli_indices(size: int, probability: float) -> Tensor:
    """Select each index in [0, size) with ``probability``; return the selected indices, sorted.

    Only the gaps between selected indices are drawn, from a geometric distribution.
    """
    chunks: list[Tensor] = []
    last = -1
    while last < size - 1:
        expected = (size - 1 - last) * probability
        gaps = torch.empty(int(expected + 4 * math.sqrt(expected)) + 8, dtype=torch.int64)
        indices = gaps.geometric_(probability).cumsum(0) + last
        chunks.append(indices)
        last = int(indices[-1])
    joined = torch.cat(chunks)
    return joined[joined < size]


def _ceil_sqrt(value: int) -> int:
    return math.isqrt(value - 1) + 1
