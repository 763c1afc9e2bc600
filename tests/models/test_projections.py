from __future__ import annotations

import math

import pytest
import torch
from scipy.linalg import hadamard

from flexhpc.models.projections import (
    PROJECTIONS,
    DenseProjection,
    FastfoodProjection,
    KroneckerProjection,
    SparseProjection,
)

SIZES = [(2, 1), (7, 7), (50, 1), (50, 6), (100, 33), (300, 17)]


def columns(projection: torch.nn.Module, number: int) -> torch.Tensor:
    """Return P, one column for each unit vector."""
    unit = torch.eye(number, dtype=torch.float64)
    return torch.stack([projection(vector) for vector in unit], dim=1)


@pytest.mark.parametrize("size", SIZES)
def test_dense_columns_have_unit_length_and_are_independent(size: tuple[int, int]) -> None:
    matrix = columns(DenseProjection(*size).double(), size[1])
    assert matrix.shape == size
    assert int(torch.linalg.matrix_rank(matrix)) == size[1]
    torch.testing.assert_close(matrix.norm(dim=0), torch.ones(size[1]).double(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("size", SIZES)
def test_sparse_equals_its_matrix(size: tuple[int, int]) -> None:
    torch.manual_seed(1)
    projection = SparseProjection(*size).double()
    matrix = torch.zeros(size, dtype=torch.float64)
    matrix[projection.row, projection.column] = projection.value
    assert int((matrix != 0).sum()) == len(projection.value)  # no entry twice
    assert torch.equal(columns(projection, size[1]), matrix)


def test_density_and_size_of_sparse_entries() -> None:
    torch.manual_seed(2)
    projection = SparseProjection(10_000, 100)
    expected = 10_000 * 100 / math.sqrt(10_000)
    assert len(projection.value) == pytest.approx(expected, abs=5 * math.sqrt(expected))
    assert projection.value.abs().unique().tolist() == pytest.approx([0.1])
    assert abs(float(projection.value.sign().mean())) < 5 / math.sqrt(expected)


def test_sparse_gradient_is_deterministic_and_equals_the_dense_gradient() -> None:
    torch.manual_seed(4)
    projection = SparseProjection(5_000, 40)
    matrix = columns(projection.double(), 40).float()
    projection.float()
    direction = torch.randn(5_000)
    gradients = []
    for _ in range(2):
        z = torch.zeros(40, requires_grad=True)
        (projection(z) * direction).sum().backward()
        gradients.append(z.grad)
    assert torch.equal(*gradients)
    torch.testing.assert_close(gradients[0], matrix.T @ direction, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_kronecker_equals_its_matrix(size: tuple[int, int]) -> None:
    projection = KroneckerProjection(*size).double()
    product = torch.kron(projection.left, projection.right)
    torch.testing.assert_close(columns(projection, size[1]), product[: size[0], : size[1]])


@pytest.mark.parametrize("size", SIZES)
def test_fastfood_equals_its_matrix(size: tuple[int, int]) -> None:
    projection = FastfoodProjection(*size).double()
    blocks, n = projection.sign.shape
    h = torch.from_numpy(hadamard(n)).double()
    matrices = []
    for block in range(blocks):
        sign, gauss, length = (
            torch.diag(diagonal[block])
            for diagonal in (projection.sign, projection.gauss, projection.length)
        )
        order = projection.order[block * n : (block + 1) * n] - block * n
        assert sorted(order.tolist()) == list(range(n))
        permutation = torch.eye(n, dtype=torch.float64)[order]
        matrices.append(length @ h @ gauss @ permutation @ h @ sign)
    torch.testing.assert_close(
        columns(projection, size[1]), torch.cat(matrices)[: size[0], : size[1]]
    )


@pytest.mark.parametrize("kind", ["sparse", "kronecker", "fastfood"])
@pytest.mark.parametrize("size", [(400, 5), (1_000, 3), (37, 6)])
def test_columns_have_unit_length_on_average(kind: str, size: tuple[int, int]) -> None:
    torch.manual_seed(5)
    squares = torch.stack(
        [columns(PROJECTIONS[kind](*size).double(), size[1]).square().sum(0) for _ in range(200)]
    ).mean(dim=1)
    error = float(squares.std()) / math.sqrt(len(squares))
    assert error < 0.05
    assert float(squares.mean()) == pytest.approx(1, abs=4 * error)
