"""Every optimizer against its slow twin, over a resume, and at its defaults."""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from flexhpc.config.sections.model import Mlp
from flexhpc.config.sections.training import Adam, AdamW, Gd, Muon, Sgd, Shampoo, Soap, Training
from flexhpc.config.variants import variants
from flexhpc.training.optimizers import (
    clip_gradients,
    make_optimizer,
    perturb_weights,
    rate,
    restore_weights,
    update_weights,
)
from flexhpc.training.shampoo import Shampoo as FastShampoo
from tests.training import reference_optimizers as reference
from tests.training.helpers import run

ALL: tuple[Training, ...] = (
    Sgd(optimizer="sgd", weight_decay=0.01),
    Gd(optimizer="gd", momentum=0.5),
    Adam(optimizer="adam"),
    AdamW(optimizer="adamw"),
    Shampoo(optimizer="shampoo", weight_decay=0.01),
    Soap(optimizer="soap", weight_decay=0.1),
    Muon(optimizer="muon", weight_decay=0.1),
)
each = pytest.mark.parametrize("training", ALL, ids=lambda training: training.optimizer)

Loss = Callable[[int], Tensor]
Problem = Callable[[], tuple[list[nn.Parameter], Loss]]


def quadratic() -> tuple[list[nn.Parameter], Loss]:
    """A vector, a wide and a tall matrix and a kernel in the bowl of one matrix."""
    torch.manual_seed(0)
    root = torch.randn(6, 6, dtype=torch.float64)
    shapes = ((6,), (6, 9), (8, 6), (6, 2, 3, 3))
    parameters = [nn.Parameter(torch.randn(shape, dtype=torch.float64)) for shape in shapes]

    def loss(step: int) -> Tensor:
        tensors = [p if len(p) == 6 else p.T for p in parameters]
        return sum(((root @ t.reshape(6, -1)).square().sum() for t in tensors), torch.zeros(()))

    return parameters, loss


def network(*layers: nn.Module, shape: tuple[int, ...]) -> tuple[list[nn.Parameter], Loss]:
    """Random labels in four batches that take turns."""
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
rates = pytest.mark.parametrize("times", [0.1, 1.0, 10.0])
"""Multiples of the default rate."""


def stepped(
    problem: Problem, make: Callable[[list[nn.Parameter]], torch.optim.Optimizer], steps: int = 40
) -> Iterator[tuple[torch.optim.Optimizer, nn.Parameter, Tensor]]:
    """Train; yield the optimizer, and each parameter with its former weights, after each step."""
    parameters, loss = problem()
    optimizer = make(parameters)
    for step in range(steps):
        optimizer.zero_grad()
        loss(step).backward()
        before = [p.detach().clone() for p in parameters]
        gradients = [p.grad.clone() for p in parameters if p.grad is not None]
        optimizer.step()
        for parameter, former, gradient in zip(parameters, before, gradients, strict=True):
            parameter.grad = gradient
            yield optimizer, parameter, former


def deviation(twin: object, parameter: nn.Parameter, former: Tensor, lr: float) -> float:
    """Return by how much a step differs from the twin's from the same place, over its length."""
    assert parameter.grad is not None
    old = former.numpy()
    expected = twin.step(old, parameter.grad.numpy(), lr)  # type: ignore[attr-defined]
    length = float(np.linalg.norm(expected - old))
    return float(np.linalg.norm(parameter.detach().numpy() - expected)) / (length or 1.0)


@problems
@rates
@pytest.mark.parametrize("widest", [1200, 5])
def test_shampoo_is_that_of_the_paper(problem: Problem, times: float, widest: int) -> None:
    lr = 0.3 * times
    twins: dict[nn.Parameter, reference.Shampoo] = {}
    for _, parameter, former in stepped(
        problem, lambda ps: FastShampoo(ps, lr=lr, weight_decay=0.1, widest=widest)
    ):
        twin = twins.setdefault(parameter, reference.Shampoo(decay=0.1, widest=widest))
        assert deviation(twin, parameter, former, lr) < 1e-7


@problems
@rates
def test_soap_is_that_of_the_paper(problem: Problem, times: float) -> None:
    """The twin takes over the axes after each turn: it is rounding that places those which carry
    next to nothing, and the library turns in single precision."""
    training = Soap(optimizer="soap", lr=3e-3 * times, weight_decay=0.1)
    twins: dict[nn.Parameter, reference.Soap] = {}
    turned = []
    for optimizer, parameter, former in stepped(problem, lambda ps: make_optimizer(training, ps)):
        twin = twins.setdefault(parameter, reference.Soap(decay=0.1))
        assert deviation(twin, parameter, former, training.lr) < 1e-6
        state = optimizer.state[parameter]
        if parameter.dim() > 1:
            axes = [matrix.numpy() for matrix in state["Q"]]
            if twin.updates == 0:
                assert max(map(off_diagonal, axes, twin.statistics)) < 1e-12
            elif twin.updates % 10 == 0:
                turned += [np.linalg.norm(a - b) for a, b in zip(axes, twin.axes, strict=True)]
                twin.square = state["exp_avg_sq"].numpy().copy()
            twin.axes = [matrix.copy() for matrix in axes]
    assert np.median(turned) < 1e-5


def off_diagonal(axes: reference.Array, statistics: reference.Array) -> float:
    """Return how far axes are from eigenvectors."""
    turned = axes.T @ statistics @ axes
    return float(np.linalg.norm(turned - np.diag(np.diag(turned))) / np.linalg.norm(turned))


@problems
@rates
@pytest.mark.parametrize("wide", [True, False])
def test_muon_is_that_of_its_author(
    problem: Problem, times: float, wide: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly so if its matrix products are made in double precision instead of bfloat16."""
    if wide:
        from pytorch_optimizer.optimizer.muon import base

        name = "zero_power_via_newton_schulz_5"
        double = functools.partial(getattr(base, name), dtype=torch.float64)
        monkeypatch.setattr(base, name, double)
    training = Muon(optimizer="muon", lr=0.02 * times, weight_decay=0.1)
    twins: dict[nn.Parameter, reference.Muon | reference.AdamW] = {}
    found = []
    for _, parameter, former in stepped(problem, lambda ps: make_optimizer(training, ps)):
        matrix = parameter.dim() > 1
        new = reference.Muon(decay=0.1) if matrix else reference.AdamW(decay=0.1)
        twin = twins.setdefault(parameter, new)
        lr = training.lr * (1.0 if matrix else 0.1)
        found.append(deviation(twin, parameter, former, lr))
        assert found[-1] < (1e-9 if wide or not matrix else 1.0)
    assert np.median(found) < 0.1


@problems
def test_sam_goes_where_the_paper_says_and_comes_back(problem: Problem) -> None:
    parameters, loss = problem()
    loss(0).backward()
    unused = nn.Parameter(torch.ones(3, dtype=torch.float64))
    weights = [p.detach().numpy().copy() for p in parameters]
    gradients = [p.grad.numpy() for p in parameters if p.grad is not None]
    kept = perturb_weights([*parameters, unused], 0.05)
    expected = reference.perturbed(weights, gradients, 0.05)
    for parameter, there in zip(parameters, expected, strict=True):
        np.testing.assert_allclose(parameter.detach().numpy(), there, rtol=1e-13)
    assert kept[-1] is None
    restore_weights([*parameters, unused], kept)
    for parameter, weight in zip(parameters, weights, strict=True):
        np.testing.assert_array_equal(parameter.detach().numpy(), weight)


def test_sam_stays_where_there_is_no_gradient() -> None:
    flat = nn.Parameter(torch.ones(3))
    assert perturb_weights([flat], 0.05) == [None]
    flat.grad = torch.zeros(3)
    perturb_weights([flat], 0.05)
    assert flat.tolist() == [1, 1, 1]


def trained(training: Training, parts: list[int], seed: int = 0) -> dict[str, Tensor]:
    """Train in parts, each of which begins with new objects that load what the last one saved."""
    saved = b""
    done = 0
    for steps in parts:
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Unflatten(1, (1, 4, 4)),
            nn.Conv2d(1, 5, 3, bias=False),  # a bias here has a gradient of rounding errors alone
            nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(20, 7), nn.Tanh(),
            nn.Linear(7, 3),
        )  # fmt: skip
        spare = nn.Linear(4, 4)
        optimizer = make_optimizer(training, [*model.parameters(), *spare.parameters()])
        inputs, labels = torch.randn(40, 16), torch.randint(3, (40,))
        if saved:
            state = torch.load(io.BytesIO(saved), weights_only=True)
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
        for step in range(done, done + steps):
            rows = slice(20 * (step % 2), 20 * (step % 2) + 20)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs[rows]), labels[rows]).backward()
            for group in optimizer.param_groups:
                group["lr"] = rate(training, training.lr, step, 20) * group["lr_factor"]
            optimizer.step()
        done += steps
        file = io.BytesIO()
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
        saved = file.getvalue()
    spares = {f"spare.{key}": value for key, value in spare.state_dict().items()}
    return {**model.state_dict(), **spares}


@each
def test_a_resumed_training_has_the_same_bits(training: Training) -> None:
    training = training.model_copy(update={"schedule": "cosine", "warmup": 5})
    whole, parted = trained(training, [24]), trained(training, [10, 3, 11])
    for key, value in whole.items():
        assert torch.equal(value, parted[key]), key
    start = trained(training, [0])
    moved = {key for key in start if not torch.equal(start[key], whole[key])}
    assert moved == {key for key in start if not key.startswith("spare")}


@each
@pytest.mark.parametrize("finite", [0, 4])
def test_a_gradient_that_is_not_finite_ends_in_nan(training: Training, finite: int) -> None:
    """So that the loop sees a training that diverged, not an error of linear algebra."""
    weight = nn.Parameter(torch.ones(3, 2))
    optimizer = make_optimizer(training, [weight])
    for step in range(24):
        weight.grad = torch.full((3, 2), math.nan if step >= finite else 1.0)
        update_weights(optimizer)
    assert not weight.isfinite().any()


def test_shampoo_takes_numbers_and_long_vectors() -> None:
    """A number's update is its sign at first; so is that of each entry on a diagonal."""
    number, vector = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.zeros(1201))
    number.grad, vector.grad = torch.tensor(-4.0), torch.linspace(1, 2, 1201)
    FastShampoo([number, vector], lr=0.5).step()
    assert number.item() == pytest.approx(1.5)
    torch.testing.assert_close(vector.detach(), torch.full((1201,), -0.5))


def test_shampoo_bears_a_gradient_of_rank_one_in_single_precision() -> None:
    weight = nn.Parameter(torch.zeros(64, 64))
    optimizer = FastShampoo([weight], lr=0.1)
    for _ in range(20):
        weight.grad = torch.outer(torch.ones(64), torch.linspace(-300, 300, 64))
        optimizer.step()
    assert weight.isfinite().all()
    assert weight.abs().max() < 1


def test_muon_has_a_tenth_of_the_rate_for_the_rest() -> None:
    parameters = [nn.Parameter(torch.ones(s)) for s in ((2, 2), (2,), (2, 2, 1, 1), ())]
    optimizer = make_optimizer(Muon(optimizer="muon"), parameters)
    factors = {id(p): g["lr_factor"] for g in optimizer.param_groups for p in g["params"]}
    assert [factors[id(p)] for p in parameters] == [1.0, 0.1, 1.0, 0.1]
    (only,) = make_optimizer(Muon(optimizer="muon"), [parameters[1]]).param_groups
    assert only["lr_factor"] == 0.1


@pytest.mark.parametrize(
    "training",
    [
        Soap(optimizer="soap", epochs=100),
        Muon(optimizer="muon", epochs=60),
        Shampoo(optimizer="shampoo", lr=0.3, epochs=160),
    ],
    ids=lambda training: training.optimizer,
)
def test_random_labels_are_fitted(training: Training) -> None:
    outcome = run(training, 1000, model=Mlp(family="mlp", width=64, depth=2))
    assert outcome.verdict == "fit"


def test_a_gradient_is_clipped_as_one_vector() -> None:
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(3)]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0]), torch.tensor([4.0])
    clip_gradients(parameters, 10.0)
    assert parameters[1].grad.item() == 4
    clip_gradients(parameters, 1.0)
    assert parameters[0].grad.item() == pytest.approx(0.6)
    assert parameters[2].grad is None


def test_rates() -> None:
    constant, cosine = Sgd(optimizer="sgd"), Sgd(optimizer="sgd", schedule="cosine")
    assert rate(constant, 0.1, 7, math.inf) == 0.1
    assert rate(cosine, 0.1, 0, 10) == 0.1
    assert rate(cosine, 0.1, 5, 10) == pytest.approx(0.05)
    assert rate(cosine, 0.1, 10, 10) == pytest.approx(0, abs=1e-12)


@given(st.integers(1, 50), st.integers(1, 200), st.sampled_from(["constant", "cosine"]))
def test_warm_up_rises_to_the_schedule(warmup: int, total: int, schedule: str) -> None:
    given_ = {"optimizer": "sgd", "schedule": schedule}
    plain, warm = Sgd(**given_), Sgd(**given_, warmup=warmup)  # type: ignore[arg-type]
    for step in range(total):
        share = rate(warm, 2.0, step, total) / rate(plain, 2.0, step, total)
        assert share == pytest.approx(min(1, (step + 1) / warmup))


def test_every_optimizer_of_the_spec_is_tested() -> None:
    ours = {cls for cls in variants("training").values() if issubclass(cls, Training)}
    assert ours == {type(training) for training in ALL}


@pytest.mark.parametrize(
    ("training", "theirs"),
    [(Sgd(optimizer="sgd", momentum=0.9), functools.partial(torch.optim.SGD, momentum=0.9)),
     (Adam(optimizer="adam"), torch.optim.Adam), (AdamW(optimizer="adamw"), torch.optim.AdamW)],
)  # fmt: skip
def test_without_the_wrappers_of_torch_steps_and_state_are_the_same(
    training: Training, theirs: Callable[..., torch.optim.Optimizer]
) -> None:
    weights, states = [], []
    for make in (
        lambda p: make_optimizer(training, p),
        lambda p: theirs(p, lr=training.lr, weight_decay=training.weight_decay, fused=True),
    ):
        parameters, loss = quadratic()
        optimizer = make(parameters)
        for step in range(20):
            optimizer.zero_grad()
            loss(step).backward()
            update_weights(optimizer)
        weights.append(torch.cat([p.detach().flatten() for p in parameters]))
        states.append(optimizer.state_dict()["state"])
    assert torch.equal(*weights)
    assert states[0].keys() == states[1].keys()
    assert all(states[0][k].keys() == states[1][k].keys() for k in states[0])
