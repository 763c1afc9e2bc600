"""Ritz values against dense Hessians."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
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
from flexhpc.training.curvature import Ritz, hessian_product, lanczos, ritz
from tests.conftest import REPOSITORY

ALONE = Group(torch.device("cpu"))
MANY = 10_000


def tanh_net() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.Tanh(), nn.Linear(4, 3))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, stride=2), nn.BatchNorm2d(2), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(),
        nn.Linear(2, 3),
    )  # fmt: skip


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


@pytest.mark.parametrize("make", [tanh_net, cnn, attention])
@pytest.mark.parametrize("shards", [None, 3])
def test_the_ends_of_a_dense_hessian(make: Callable[[], nn.Module], shards: int | None) -> None:
    torch.manual_seed(0)
    model = make().train()
    inputs, labels = samples()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = ritz(model, inputs, labels, ALONE, MANY, seed=1, shards=shards)
    assert model.training
    for key, value in model.state_dict().items():
        assert value.dtype == before[key].dtype
        assert torch.equal(value, before[key])
    assert all(p.grad is None for p in model.parameters())
    spectrum = eigenvalues(model, inputs, labels)
    size = float(spectrum.abs().max())
    assert found.min == pytest.approx(float(spectrum[0]), abs=1e-8 * size)
    assert found.max == pytest.approx(float(spectrum[-1]), abs=1e-8 * size)
    assert found.products <= len(spectrum)
    assert max(found.residual_min, found.residual_max) < 1e-6 * size


def test_frozen_and_idle_parameters() -> None:
    """A frozen one is a constant; one without influence adds a zero to the spectrum."""
    torch.manual_seed(0)
    model = tanh_net()
    model.register_parameter("idle", nn.Parameter(torch.ones(3)))
    model[3].weight.requires_grad_(False)
    inputs, labels = samples()
    found = ritz(model, inputs, labels, ALONE, MANY, seed=1)
    spectrum = eigenvalues(model, inputs, labels)
    assert len(spectrum) == sum(p.numel() for p in tanh_net().parameters()) - 12 + 3
    assert found.min == pytest.approx(float(spectrum[0]), abs=1e-8)
    assert found.max == pytest.approx(float(spectrum[-1]), abs=1e-8)


def test_a_known_saddle() -> None:
    curvatures = torch.linspace(-0.5, 3, 40, dtype=torch.float64)
    found = lanczos(lambda v: curvatures * v, torch.ones(40, dtype=torch.float64), 40, tolerance=0)
    assert found.min == pytest.approx(-0.5, abs=1e-12)
    assert found.max == pytest.approx(3, abs=1e-12)
    assert found.negative(0.1)
    assert not found.negative(0.2)


def test_a_minimum_is_no_saddle() -> None:
    curvatures = torch.cat([torch.zeros(30), torch.linspace(0, 3, 20)]).double()
    found = lanczos(lambda v: curvatures * v, torch.ones(50, dtype=torch.float64), 50)
    assert not found.negative(1e-9)


@given(st.integers(1, 30), st.integers(1, 40), st.integers(0, 2**32 - 1), st.booleans())
def test_ritz_values_lie_within_the_spectrum(n: int, most: int, seed: int, low: bool) -> None:
    """So that a negative one is a proof; and the products counted are those that were made."""
    random = np.random.default_rng(seed)
    rank = max(1, n // 3) if low else n
    factor = random.standard_normal((n, rank))
    matrix = torch.from_numpy(factor @ np.diag(random.standard_normal(rank)) @ factor.T)
    matrix = (matrix + matrix.T) / 2
    calls = 0

    def multiply(vector: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return matrix @ vector

    found = lanczos(multiply, torch.from_numpy(random.standard_normal(n)), most)
    spectrum = torch.linalg.eigvalsh(matrix)
    slack = 1e-12 * float(spectrum.abs().max())
    assert float(spectrum[0]) - slack <= found.min <= found.max <= float(spectrum[-1]) + slack
    for value, residual in ((found.min, found.residual_min), (found.max, found.residual_max)):
        assert float((spectrum - value).abs().min()) <= residual + slack
    assert found.products == calls <= min(n, most)
    if most >= n:
        assert found.max - found.min == pytest.approx(
            float(spectrum[-1] - spectrum[0]), abs=1e-5 * float(spectrum.abs().max())
        )


def test_it_stops_when_both_ends_have_converged() -> None:
    curvatures = torch.cat([torch.tensor([-5.0, 9.0]), torch.linspace(-1, 1, 998)]).double()
    start = torch.from_numpy(np.random.default_rng(0).standard_normal(1000))
    found = lanczos(lambda v: curvatures * v, start, 1000)
    assert found.products < 40
    assert found.min == pytest.approx(-5, abs=1e-9)
    assert found.max == pytest.approx(9, abs=1e-9)


def test_nothing_curves() -> None:
    start = torch.ones(5, dtype=torch.float64)
    found = lanczos(torch.zeros_like, start, 5)
    assert found == Ritz(min=0.0, max=0.0, products=1, residual_min=0.0, residual_max=0.0)
    assert not found.negative(0.1)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_hessian_that_is_not_finite_gives_nan(bad: float) -> None:
    model = tanh_net()
    with torch.no_grad():
        model[3].weight[0, 0] = bad
    found = ritz(model, *samples(), ALONE, 20, seed=0)
    assert math.isnan(found.min)
    assert math.isnan(found.residual_max)
    assert found.products == 1
    assert not found.negative(0.1)


def test_chunks_do_not_matter() -> None:
    torch.manual_seed(0)
    model = tanh_net().double()
    inputs, labels = samples(30)
    parameters = list(model.parameters())
    vector = torch.randn(sum(p.numel() for p in parameters), dtype=torch.float64)

    def loss_of(ids: Tensor) -> Tensor:
        return functional.cross_entropy(model(inputs[ids].double()), labels[ids], reduction="sum")

    whole = hessian_product(loss_of, parameters, [torch.arange(30)], vector)
    parted = hessian_product(loss_of, parameters, torch.arange(30).split(7), vector)
    torch.testing.assert_close(whole, parted, rtol=1e-12, atol=1e-12)
    assert whole.norm() > 1


def test_a_loss_without_curvature() -> None:
    weight = nn.Parameter(torch.ones(3))
    product = hessian_product(
        lambda ids: (weight * ids).sum(), [weight], [torch.ones(3)], torch.ones(3)
    )
    assert product.tolist() == [0, 0, 0]


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return 2 * values

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 2 * gradient


class Rough(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return Once.apply(values)  # type: ignore[no-any-return]


def test_no_second_derivative_is_one_clear_line() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), Rough(), nn.Tanh(), nn.Linear(4, 3))
    with pytest.raises(PointError, match=r"gates.curvature: needs second derivatives.*turn the"):
        ritz(model, *samples(), ALONE, 20, seed=0)


def test_other_errors_are_not_taken_for_it() -> None:
    inputs, labels = samples()
    with pytest.raises(RuntimeError, match="shape"):
        ritz(tanh_net(), inputs[:, :, :3], labels, ALONE, 20, seed=0)


CASES: tuple[int | None, ...] = (None, 3)


def found_by(group: Group) -> list[Ritz]:
    torch.manual_seed(0)
    model = tanh_net()
    return [
        ritz(model, *samples(count), group, 12, seed=1, shards=shards)
        for shards in CASES
        for count in (1, 23)
    ]


def test_processes_share_the_work(tmp_path: Path) -> None:
    """In shards with the same bits; with fewer samples than processes as well."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.training.test_curvature", str(rank), str(tmp_path)],
            cwd=REPOSITORY, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    for process in processes:
        _, said = process.communicate()
        assert process.returncode == 0, said
    first, second = (pickle.loads((tmp_path / f"{rank}.pkl").read_bytes()) for rank in range(2))
    assert first == second
    torch.manual_seed(0)
    alone = found_by(ALONE)
    assert first[2:] == alone[2:]
    for one, many in zip(alone[:2], first[:2], strict=True):
        assert many.products == one.products
        assert many.min == pytest.approx(one.min, rel=1e-6)
        assert many.max == pytest.approx(one.max, rel=1e-9)


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    group = Group.join(torch.device("cpu"), rank, 2, host="127.0.0.1", token=str(folder))
    (folder / f"{rank}.pkl").write_bytes(pickle.dumps(found_by(group)))
    group.leave()


if __name__ == "__main__":
    # Under the name that the test reads its results by.
    from tests.training import test_curvature

    test_curvature.main(int(sys.argv[1]), Path(sys.argv[2]))
