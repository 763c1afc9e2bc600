"""Ritz values of the Hessian against dense Hessians."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd.functional import hessian
from torch.func import functional_call
from torch.nn import functional

from flexhpc.config.sections.model import Vit
from flexhpc.errors import PointError
from flexhpc.models import build
from flexhpc.training import Group
from flexhpc.training.curvature import RitzValues, hessian_ritz, lanczos, multiply_hessian
from flexhpc.training.group import Partition

GROUP = Group(torch.device("cpu"))
UNDIVIDED = Partition(GROUP)
MAX_PRODUCTS = 10_000


def tanh_net() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.Tanh(), nn.Linear(4, 3))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, stride=2), nn.BatchNorm2d(2), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(),
        nn.Linear(2, 3),
    )  # fmt: skip


def frozen_and_unused() -> nn.Module:
    """Return a network with a frozen and an unused parameter."""
    model = tanh_net()
    model.register_parameter("unused", nn.Parameter(torch.ones(3)))
    model[3].weight.requires_grad_(False)
    return model


def attention() -> nn.Module:
    vit = Vit(family="vit", width=4, depth=1, heads=2, patch=2, mlp_ratio=1.0)
    return build(vit, (1, 4, 4), 3)


def samples(count: int = 20) -> tuple[Tensor, Tensor]:
    return torch.randn(count, 1, 4, 4), torch.randint(3, (count,))


def eigenvalues(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Return the spectrum of the dense Hessian in eval mode."""
    model = model.double().eval()
    free = {name: p for name, p in model.named_parameters() if p.requires_grad}
    sizes = [p.numel() for p in free.values()]
    flat = torch.cat([p.detach().reshape(-1) for p in free.values()])

    def loss(vector: Tensor) -> Tensor:
        pieces = zip(free.items(), vector.split(sizes), strict=True)
        weights = {name: piece.view_as(p) for (name, p), piece in pieces}
        return functional.cross_entropy(functional_call(model, weights, inputs.double()), labels)

    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        return torch.linalg.eigvalsh(hessian(loss, flat))


@pytest.mark.parametrize("make", [tanh_net, frozen_and_unused, cnn, attention])
@pytest.mark.parametrize(
    ("shards", "n"), [(None, 20), (3, 20), (None, 600)], ids=["plain", "shards", "chunks"]
)
def test_ritz_values_equal_extreme_eigenvalues(
    make: Callable[[], nn.Module], shards: int | None, n: int
) -> None:
    """Frozen parameters are constant, and unused ones add zeros to the spectrum."""
    torch.manual_seed(0)
    model = make().train()
    inputs, labels = samples(n)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    partition = Partition(GROUP, shards)
    result = hessian_ritz(model, inputs, labels, partition, MAX_PRODUCTS, seed=1)
    assert model.training
    for key, value in model.state_dict().items():
        assert value.dtype == before[key].dtype
        assert torch.equal(value, before[key])
    assert all(p.grad is None for p in model.parameters())
    spectrum = eigenvalues(model, inputs, labels)
    size = float(spectrum.abs().max())
    assert result.min == pytest.approx(float(spectrum[0]), abs=1e-8 * size)
    assert result.max == pytest.approx(float(spectrum[-1]), abs=1e-8 * size)
    assert result.products <= len(spectrum)
    assert max(result.residual_min, result.residual_max) < 1e-6 * size


def test_only_a_saddle_has_negative_curvature() -> None:
    saddle = torch.linspace(-0.5, 3, 40, dtype=torch.float64)
    result = lanczos(lambda v: saddle * v, torch.ones(40, dtype=torch.float64), 40)
    assert result.has_negative_min(0.1)
    assert not result.has_negative_min(0.2)
    minimum = torch.cat([torch.zeros(30), torch.linspace(0, 3, 20)]).double()
    result = lanczos(lambda v: minimum * v, torch.ones(50, dtype=torch.float64), 50)
    assert not result.has_negative_min(1e-9)


@given(st.integers(1, 30), st.integers(1, 40), st.integers(0, 2**32 - 1), st.booleans())
def test_ritz_values_are_in_the_spectrum(n: int, products: int, seed: int, low_rank: bool) -> None:
    random = np.random.default_rng(seed)
    rank = max(1, n // 3) if low_rank else n
    factor = random.standard_normal((n, rank))
    matrix = torch.from_numpy(factor @ np.diag(random.standard_normal(rank)) @ factor.T)
    matrix = (matrix + matrix.T) / 2
    calls = 0

    def multiply(vector: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return matrix @ vector

    result = lanczos(multiply, torch.from_numpy(random.standard_normal(n)), products)
    spectrum = torch.linalg.eigvalsh(matrix)
    size = float(spectrum.abs().max())
    tolerance = 1e-12 * size
    lowest, highest = float(spectrum[0]), float(spectrum[-1])
    assert lowest - tolerance <= result.min <= result.max <= highest + tolerance
    for value, residual in ((result.min, result.residual_min), (result.max, result.residual_max)):
        assert float((spectrum - value).abs().min()) <= residual + tolerance
    assert result.products == calls <= min(n, products)
    if products >= n:
        difference = result.max - result.min
        assert difference == pytest.approx(highest - lowest, abs=1e-5 * size)


def test_lanczos_stops_when_both_ends_have_converged() -> None:
    curvatures = torch.cat([torch.tensor([-5.0, 9.0]), torch.linspace(-1, 1, 998)]).double()
    start = torch.from_numpy(np.random.default_rng(0).standard_normal(1000))
    result = lanczos(lambda v: curvatures * v, start, 1000)
    assert result.products < 40
    assert result.min == pytest.approx(-5, abs=1e-9)
    assert result.max == pytest.approx(9, abs=1e-9)


def test_lanczos_of_a_zero_operator_makes_one_product() -> None:
    start = torch.ones(5, dtype=torch.float64)
    result = lanczos(torch.zeros_like, start, 5)
    assert result == RitzValues(min=0.0, max=0.0, products=1, residual_min=0.0, residual_max=0.0)
    assert not result.has_negative_min(0.1)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_non_finite_hessian_gives_nan(value: float) -> None:
    model = tanh_net()
    with torch.no_grad():
        model[3].weight[0, 0] = value
    result = hessian_ritz(model, *samples(), UNDIVIDED, 20, seed=0)
    assert math.isnan(result.min)
    assert math.isnan(result.residual_max)
    assert result.products == 1
    assert not result.has_negative_min(0.1)


def test_the_hessian_of_a_linear_loss_is_zero() -> None:
    weight = nn.Parameter(torch.ones(3))
    product = multiply_hessian(
        lambda ids: (weight * ids).sum(), [weight], [torch.ones(3)], torch.ones(3)
    )
    assert product.tolist() == [0, 0, 0]


class OnceDifferentiable(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return 2 * values

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 2 * gradient


class OnceLayer(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return OnceDifferentiable.apply(values)  # type: ignore[no-any-return]


def test_a_missing_second_derivative_raises() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), OnceLayer(), nn.Tanh(), nn.Linear(4, 3))
    with pytest.raises(PointError, match=r"gates.curvature: needs second derivatives.*set its"):
        hessian_ritz(model, *samples(), UNDIVIDED, 20, seed=0)


def test_other_errors_are_raised_unchanged() -> None:
    inputs, labels = samples()
    with pytest.raises(RuntimeError, match="shape"):
        hessian_ritz(tanh_net(), inputs[:, :, :3], labels, UNDIVIDED, 20, seed=0)
