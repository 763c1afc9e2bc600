"""Optimizers against slow reference implementations, schedules, and edge cases."""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from flexhpc.config.sections.training import Muon, Sgd, Soap, Training
from flexhpc.training.optimizers import (
    budget_independent_updates,
    learning_rate,
    make_optimizer,
    perturb_weights,
    update_weights,
)
from flexhpc.training.shampoo import Shampoo as FastShampoo
from tests import sections
from tests.training import reference_optimizers as reference

every_optimizer = pytest.mark.parametrize("name", sections.OPTIMIZERS)

Loss = Callable[[int], Tensor]
Problem = Callable[[], tuple[list[nn.Parameter], Loss]]
Step = Callable[[reference.Array, reference.Array, float], reference.Array]


def quadratic() -> tuple[list[nn.Parameter], Loss]:
    """Return a vector, a wide and a tall matrix and a kernel, and a quadratic loss of them."""
    torch.manual_seed(0)
    root = torch.randn(6, 6, dtype=torch.float64)
    shapes = ((6,), (6, 9), (8, 6), (6, 2, 3, 3))
    parameters = [nn.Parameter(torch.randn(shape, dtype=torch.float64)) for shape in shapes]

    def loss(step: int) -> Tensor:
        tensors = [p if len(p) == 6 else p.T for p in parameters]
        return sum(((root @ t.reshape(6, -1)).square().sum() for t in tensors), torch.zeros(()))

    return parameters, loss


def network(*layers: nn.Module, shape: tuple[int, ...]) -> tuple[list[nn.Parameter], Loss]:
    """Return a network and its loss on random labels in four alternating batches."""
    model = nn.Sequential(*layers).double()
    inputs = torch.randn(4, 32, *shape, dtype=torch.float64)
    labels = torch.randint(4, (4, 32))

    def loss(step: int) -> Tensor:
        return nn.functional.cross_entropy(model(inputs[step % 4]), labels[step % 4])

    return list(model.parameters()), loss


def mlp() -> tuple[list[nn.Parameter], Loss]:
    torch.manual_seed(0)
    return network(nn.Linear(10, 12), nn.Tanh(), nn.Linear(12, 4), shape=(10,))


def cnn() -> tuple[list[nn.Parameter], Loss]:
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 5, 3, stride=2, padding=1)
    return network(conv, nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(20, 4), shape=(2, 4, 4))


problems = pytest.mark.parametrize("problem", [quadratic, mlp, cnn])
lr_factors = pytest.mark.parametrize("lr_factor", [0.1, 1.0, 10.0])
"""Multiples of the default learning rate."""


def train_steps(
    problem: Problem, make: Callable[[list[nn.Parameter]], torch.optim.Optimizer]
) -> Iterator[tuple[torch.optim.Optimizer, nn.Parameter, Tensor]]:
    """Make 40 steps; after each, yield the optimizer and each parameter with its previous value."""
    parameters, loss = problem()
    optimizer = make(parameters)
    for step in range(40):
        optimizer.zero_grad()
        loss(step).backward()
        weights = [p.detach().clone() for p in parameters]
        gradients = [p.grad.clone() for p in parameters if p.grad is not None]
        optimizer.step()
        for parameter, previous, gradient in zip(parameters, weights, gradients, strict=True):
            parameter.grad = gradient
            yield optimizer, parameter, previous


def deviation(step: Step, parameter: nn.Parameter, previous: Tensor, lr: float) -> float:
    """Return the relative difference between a step and that of the reference."""
    old = previous.numpy()
    expected = step(old, parameter.grad.numpy(), lr)
    length = float(np.linalg.norm(expected - old))
    return float(np.linalg.norm(parameter.detach().numpy() - expected)) / (length or 1.0)


@problems
@lr_factors
@pytest.mark.parametrize("max_dim", [1200, 5])
def test_shampoo_equals_the_paper(problem: Problem, lr_factor: float, max_dim: int) -> None:
    lr = 0.3 * lr_factor
    options = {"weight_decay": 0.1, "max_preconditioner_dim": max_dim}
    references = defaultdict(lambda: reference.Shampoo(**options))
    for _, parameter, previous in train_steps(
        problem, lambda ps: FastShampoo(ps, lr=lr, **options)
    ):
        assert deviation(references[parameter].step, parameter, previous, lr) < 1e-7


@problems
@lr_factors
def test_soap_equals_the_paper(problem: Problem, lr_factor: float) -> None:
    """The reference copies the axes of the library after each rotation.

    The library rotates in single precision, and rounding determines axes of small eigenvalues.
    """
    training = Soap(optimizer="soap", lr=3e-3 * lr_factor, weight_decay=0.1)
    references = defaultdict(lambda: reference.Soap(weight_decay=0.1))
    differences = []
    for optimizer, parameter, previous in train_steps(
        problem, lambda ps: make_optimizer(training, ps)
    ):
        soap = references[parameter]
        assert deviation(soap.step, parameter, previous, training.lr) < 1e-6
        state = optimizer.state[parameter]
        if parameter.dim() > 1:
            axes = [matrix.numpy() for matrix in state["Q"]]
            if soap.updates == 0:
                assert max(map(off_diagonal, axes, soap.statistics)) < 1e-12
            elif soap.updates % 10 == 0:
                differences += [np.linalg.norm(a - b) for a, b in zip(axes, soap.axes, strict=True)]
                soap.square = state["exp_avg_sq"].numpy().copy()
            soap.axes = [matrix.copy() for matrix in axes]
    assert np.median(differences) < 1e-5


def off_diagonal(axes: reference.Array, statistics: reference.Array) -> float:
    """Return the relative size of the off-diagonal entries in a basis."""
    rotated = axes.T @ statistics @ axes
    return float(np.linalg.norm(rotated - np.diag(np.diag(rotated))) / np.linalg.norm(rotated))


@problems
@lr_factors
@pytest.mark.parametrize("double", [True, False])
def test_muon_equals_the_reference(
    problem: Problem, lr_factor: float, double: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to rounding if matrix products are in double precision instead of bfloat16."""
    if double:
        from pytorch_optimizer.optimizer.muon import base

        name = "zero_power_via_newton_schulz_5"
        patched = functools.partial(getattr(base, name), dtype=torch.float64)
        monkeypatch.setattr(base, name, patched)
    training = Muon(optimizer="muon", lr=0.02 * lr_factor, weight_decay=0.1)
    matrices = defaultdict(lambda: reference.Muon(weight_decay=0.1))
    vectors = defaultdict(lambda: reference.AdamW(weight_decay=0.1))
    deviations = []
    for _, parameter, previous in train_steps(problem, lambda ps: make_optimizer(training, ps)):
        if parameter.dim() > 1:
            difference = deviation(matrices[parameter].step, parameter, previous, training.lr)
            assert difference < (1e-9 if double else 1.0)
        else:
            difference = deviation(vectors[parameter].step, parameter, previous, 0.1 * training.lr)
            assert difference < 1e-9
        deviations.append(difference)
    assert np.median(deviations) < 0.1


def test_sam_does_not_move_weights_without_a_gradient() -> None:
    flat = nn.Parameter(torch.ones(3))
    assert perturb_weights([flat], 0.05) == [None]
    flat.grad = torch.zeros(3)
    perturb_weights([flat], 0.05)
    assert flat.tolist() == [1, 1, 1]


@every_optimizer
def test_parameters_without_a_gradient_are_not_changed(name: str) -> None:
    weights = [nn.Parameter(torch.ones(3, 2)) for _ in range(2)]
    optimizer = make_optimizer(sections.optimizer(name, weight_decay=0.1), weights)
    for _ in range(3):
        weights[0].grad = torch.tensor([[1.0, 2.0]] * 3)
        optimizer.step()
    assert (weights[0] != 1).any()
    assert (weights[1] == 1).all()


@every_optimizer
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("finite", [0, 4])
def test_non_finite_gradients_give_nan(name: str, finite: int, value: float) -> None:
    """The training run then diverges instead of ending with an error of linear algebra."""
    weight = nn.Parameter(torch.ones(3, 2))
    optimizer = make_optimizer(sections.optimizer(name, weight_decay=0.1), [weight])
    for step in range(24):
        weight.grad = torch.full((3, 2), value if step >= finite else 1.0)
        update_weights(optimizer)
    assert not weight.isfinite().any()


def weights_after_steps(name: str, group_lr: float, **keys: object) -> list[Tensor]:
    """Return a matrix and a vector after three steps in which every group has the same rate."""
    torch.manual_seed(0)
    weights = [nn.Parameter(torch.randn(shape)) for shape in ((4, 3), (5,))]
    optimizer = make_optimizer(sections.optimizer(name, **keys), weights)
    for _ in range(3):
        for group in optimizer.param_groups:
            group["lr"] = group_lr
        for weight in weights:
            weight.grad = torch.randn_like(weight)
        update_weights(optimizer)
    return [weight.detach() for weight in weights]


@every_optimizer
def test_steps_use_the_learning_rate_of_the_group_and_weight_decay(name: str) -> None:
    expected = weights_after_steps(name, 0.01, weight_decay=0.0)
    other_section = weights_after_steps(name, 0.01, weight_decay=0.0, lr=0.5)
    faster = weights_after_steps(name, 0.02, weight_decay=0.0)
    decayed = weights_after_steps(name, 0.01, weight_decay=0.1)
    assert all(map(torch.equal, expected, other_section)), "uses training.lr"
    assert not any(map(torch.equal, expected, faster)), "ignores the rate of the group"
    assert not all(map(torch.equal, expected, decayed)), "ignores weight_decay"


@pytest.mark.parametrize("name", [n for n, cls in sections.OPTIMIZERS.items() if cls.supports_mup])
def test_groups_have_the_learning_rate_factors_of_mup(name: str) -> None:
    """The first factor if steps are proportional to the gradient, otherwise the second."""
    changes = []
    for gradient in (1.0, 2.0):
        weights = [nn.Parameter(torch.zeros(3, 2)) for _ in range(2)]
        weights[0].lr_factors = (0.5, 0.25)
        optimizer = make_optimizer(sections.optimizer(name, weight_decay=0.0), weights)
        for _ in range(2):
            for weight in weights:
                weight.grad = torch.full((3, 2), gradient)
            update_weights(optimizer)
        changes.append(weights[1].detach())
    factors = {
        id(p): group["lr_factor"] for group in optimizer.param_groups for p in group["params"]
    }
    proportional = torch.allclose(changes[1], 2 * changes[0])
    assert [factors[id(weight)] for weight in weights] == [0.5 if proportional else 0.25, 1.0]


def test_the_first_update_of_shampoo_is_the_sign_of_the_gradient() -> None:
    """Of a scalar, and of an axis that keeps only a diagonal."""
    scalar, vector = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.zeros(1201))
    scalar.grad, vector.grad = torch.tensor(-4.0), torch.linspace(1, 2, 1201)
    FastShampoo([scalar, vector], lr=0.5).step()
    assert scalar.item() == pytest.approx(1.5)
    torch.testing.assert_close(vector.detach(), torch.full((1201,), -0.5))


def test_shampoo_is_finite_with_gradients_of_rank_one() -> None:
    weight = nn.Parameter(torch.zeros(64, 64))
    optimizer = FastShampoo([weight], lr=0.1)
    for _ in range(20):
        weight.grad = torch.outer(torch.ones(64), torch.linspace(-300, 300, 64))
        optimizer.step()
    assert weight.isfinite().all()
    assert weight.abs().max() < 1


def sgd_with_schedule(schedule: str, **options: object) -> Sgd:
    return Sgd(optimizer="sgd", lr=0.1, epochs=1, schedule=schedule, **options)


def test_learning_rates_follow_the_schedule() -> None:
    constant, cosine, wsd = map(sgd_with_schedule, ("constant", "cosine", "wsd"))
    assert learning_rate(constant, 7, None) == 0.1
    assert learning_rate(cosine, 0, 10) == 0.1
    assert learning_rate(cosine, 5, 10) == pytest.approx(0.05)
    assert learning_rate(cosine, 10, 10) == pytest.approx(0, abs=1e-12)
    assert budget_independent_updates(wsd, 20) == 18
    assert [learning_rate(wsd, step, 20) for step in (0, 17, 18, 19)] == [0.1, 0.1, 0.1, 0.05]
    larger_budget = [learning_rate(wsd, step, 40) for step in range(18)]
    assert larger_budget == [learning_rate(wsd, step, 20) for step in range(18)]


@given(st.integers(1, 50), st.integers(1, 200), st.sampled_from(["constant", "cosine", "wsd"]))
def test_the_learning_rate_rises_linearly_during_warm_up(
    warmup: int, max_steps: int, schedule: str
) -> None:
    plain, warm = sgd_with_schedule(schedule), sgd_with_schedule(schedule, warmup=warmup)
    for step in range(max_steps):
        ratio = learning_rate(warm, step, max_steps) / learning_rate(plain, step, max_steps)
        assert ratio == pytest.approx(min(1, (step + 1) / warmup))


TORCH_OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


@pytest.mark.parametrize("name", TORCH_OPTIMIZERS)
def test_fused_steps_and_states_equal_those_of_torch(name: str) -> None:
    """With several rates and, except for SGD, which torch does not support, missing gradients."""
    section = sections.optimizer(name, weight_decay=0.1)
    momentum = {"momentum": section.momentum} if name == "sgd" else {}

    def torch_optimizer(_: Training, weights: list[nn.Parameter]) -> torch.optim.Optimizer:
        groups = [{"params": [weights[0], weights[2]]}, {"params": [weights[1]]}]
        options = {"lr": section.lr, "weight_decay": 0.1, "fused": True, **momentum}
        return TORCH_OPTIMIZERS[name](groups, **options)

    results, states = [], []
    for make in (make_optimizer, torch_optimizer):
        torch.manual_seed(0)
        weights = [nn.Parameter(torch.randn(shape)) for shape in ((5, 7), (3,), (4,))]
        weights[1].lr_factors = (0.5, 0.5)
        optimizer = make(section, weights)
        for step in range(6):
            for number, weight in enumerate(weights):
                absent = (number, step) in {(2, 0), (2, 1), (2, 4), (0, 3)} and name != "sgd"
                weight.grad = None if absent else torch.randn_like(weight)
            update_weights(optimizer)
        results.append([w.detach() for w in weights])
        states.append(optimizer.state_dict()["state"])
    for weight, expected in zip(*results, strict=True):
        assert torch.equal(weight, expected)
    assert [state.keys() for state in states[0].values()] == [s.keys() for s in states[1].values()]
