from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.func import functional_call

from flexhpc.config.sections.model import (
    Cnn,
    Linear,
    LowRank,
    Mlp,
    Model,
    Quantised,
    Subspace,
    Timm,
)
from flexhpc.config.sections.training import Adam
from flexhpc.errors import PointError
from flexhpc.models import build, count_parameters
from tests.sections import FAMILIES, small_network
from tests.training.helpers import DIGIT, assert_outcomes_equal, build_seeded, resume, run

PROJECTIONS = ("dense", "sparse", "kronecker", "fastfood")
REPARAMETERIZATIONS: dict[str, dict] = {
    **{f"subspace {p}": {"subspace": Subspace(dims=20, projection=p)} for p in PROJECTIONS},
    "low rank": {"low_rank": LowRank(rank=2)},
    "quantised": {"quantised": Quantised(bits=2)},
}
NETWORKS: dict[str, Model] = {
    **{name: x for name in FAMILIES if not (x := small_network(name)).predicts_tokens},
    "mlp": Mlp(family="mlp", width=6, depth=2, norm="batch"),
    "timm": Timm(family="timm:resnet10t", kwargs={"channels": [4, 4, 4, 4], "stem_width": 4}),
}


def train_sgd(network: nn.Module, seed: int, steps: int = 4) -> nn.Module:
    """Train with SGD on random images; return the network."""
    generator = torch.Generator().manual_seed(seed)
    trainable = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trainable, lr=0.1)
    network.train()
    for _ in range(steps):
        images = torch.randn(6, *DIGIT, generator=generator).to(trainable[0].dtype)
        optimizer.zero_grad()
        labels = torch.randint(10, (6,), generator=generator)
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
    return network


@pytest.mark.parametrize("kind", REPARAMETERIZATIONS)
@pytest.mark.parametrize("name", NETWORKS)
def test_training_updates_trainable_parameters_and_running_statistics(name: str, kind: str) -> None:
    model = NETWORKS[name].model_copy(update=REPARAMETERIZATIONS[kind])
    network = build_seeded(model)
    before = [p.detach().clone() for p in network.parameters()]
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert bool(norms) == (model.batch_norm or name == "timm")
    network.eval()(torch.randn(4, *DIGIT))
    assert all(int(norm.num_batches_tracked) == 0 for norm in norms)
    train_sgd(network, 0, steps=2)
    assert all(int(norm.num_batches_tracked) == 2 for norm in norms)
    assert all(not torch.equal(m.running_mean, torch.zeros_like(m.running_mean)) for m in norms)
    trainable = [p for p in network.parameters() if p.requires_grad]
    assert count_parameters(model, DIGIT, 10).trained == sum(p.numel() for p in trainable)
    for parameter, old in zip(network.parameters(), before, strict=True):
        assert parameter.isfinite().all()
        assert parameter.requires_grad or torch.equal(parameter, old)
    assert any(not torch.equal(p, old) for p, old in zip(network.parameters(), before, strict=True))


@pytest.mark.parametrize("kind", [kind for kind in REPARAMETERIZATIONS if kind != "quantised"])
def test_initial_network_equals_the_plain_network(kind: str) -> None:
    model = NETWORKS["vit"]
    images = torch.randn(3, *DIGIT)
    reparameterized = model.model_copy(update=REPARAMETERIZATIONS[kind])
    outputs = build_seeded(reparameterized, seed=3)(images)
    assert torch.equal(build_seeded(model, seed=3)(images), outputs)
    assert not torch.equal(build_seeded(reparameterized, seed=4)(images), outputs)


@pytest.mark.parametrize("kind", REPARAMETERIZATIONS)
def test_state_dict_restores_the_network_without_its_projection(kind: str, tmp_path: Path) -> None:
    model = NETWORKS["resnet"].model_copy(update=REPARAMETERIZATIONS[kind])
    network = train_sgd(build_seeded(model), 0)
    torch.save(network.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert not any("projection" in key for key in state)
    restored = build_seeded(model)
    restored.load_state_dict(state)
    images = torch.randn(3, *DIGIT)
    assert torch.equal(network.eval()(images), restored.eval()(images))
    train_sgd(network, 1)
    train_sgd(restored, 1)
    assert torch.equal(network.eval()(images), restored.eval()(images))
    tensors = [*network.double().parameters(), *network.buffers()]
    assert {t.dtype for t in tensors if t.is_floating_point()} == {torch.float64}
    train_sgd(network, 0)
    assert network(images.double()).dtype == torch.float64


@pytest.mark.parametrize("kind", REPARAMETERIZATIONS)
def test_autocast_does_not_round_the_weights(kind: str) -> None:
    model = NETWORKS["cnn"].model_copy(update=REPARAMETERIZATIONS[kind])
    network = train_sgd(build_seeded(model), 0)
    images = torch.randn(3, *DIGIT)
    weights = network.weights()
    with torch.autocast("cpu", torch.bfloat16):
        expected = functional_call(network.network, weights, (images,))
        outputs = network(images)
    assert torch.equal(outputs, expected)
    assert outputs.dtype == torch.bfloat16


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_subspace_training_moves_in_d_dimensions(projection: str) -> None:
    """The changes in seven training runs from one initialisation span the d = 4 columns of P."""
    subspace = Subspace(dims=4, projection=projection)
    model = Cnn(family="cnn", width=4, depth=2, subspace=subspace)
    vectors = []
    for seed in range(7):
        network = train_sgd(build_seeded(model).double(), seed)
        initial = network.network
        pairs = [(w, initial.get_parameter(name)) for name, w in network.weights().items()]
        vectors.append(torch.cat([(w - start).flatten() for w, start in pairs]).detach())
    changes = torch.stack(vectors)
    assert changes.shape == (
        7,
        count_parameters(Cnn(family="cnn", width=4, depth=2), DIGIT, 10).trained,
    )
    assert int(torch.linalg.matrix_rank(changes)) == 4
    span = torch.stack([network.projection(unit) for unit in torch.eye(4).double()], dim=1)
    residual = changes.T - span @ torch.linalg.lstsq(span, changes.T).solution
    assert float(residual.norm() / changes.norm()) < 1e-12


def test_dims_are_at_most_the_number_of_parameters() -> None:
    model = Linear(family="linear", subspace=Subspace(dims=650))
    assert count_parameters(model, DIGIT, 10).trained == 650
    larger = Linear(family="linear", subspace=Subspace(dims=651))
    for function in (build, count_parameters):
        with pytest.raises(
            PointError, match=r"subspace.dims: 651 exceeds the number .*; use at most 650"
        ):
            function(larger, DIGIT, 10)


def test_projection_larger_than_memory_is_one_error_message() -> None:
    model = Mlp(family="mlp", width=3_000, depth=2, subspace=Subspace(dims=9_000_000))
    assert count_parameters(model, DIGIT, 10).trained == 9_000_000
    with pytest.raises(PointError, match=r"projection: dense .* does not fit into") as caught:
        build(model, DIGIT, 10)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rank", [1, 2, 100])
def test_low_rank_changes_have_the_rank(rank: int) -> None:
    model = Mlp(
        family="mlp", width=6, depth=2, activation="tanh", low_rank=LowRank(rank=rank)
    )  # a dead ReLU would not change its row
    network = train_sgd(build_seeded(model).double(), 0, steps=12)
    initial = dict(network.network.named_parameters())
    assert all(name.endswith("weight") for name in network.weights())  # without biases
    for name, weight in network.weights().items():
        change = weight.detach() - initial[name]
        assert int(torch.linalg.matrix_rank(change, rtol=1e-9)) == min(rank, *change.shape)
    shapes = [(6, 64), (6, 6), (10, 6)]
    expected = sum(min(rank, *shape) * sum(shape) for shape in shapes)
    assert count_parameters(model, DIGIT, 10).trained == expected


@pytest.mark.parametrize(
    ("name", "bits"), [*((name, 2) for name in NETWORKS), ("cnn", 1), ("cnn", 5)]
)
def test_quantised_weights_have_2_to_the_bits_values(name: str, bits: int) -> None:
    model = NETWORKS[name].model_copy(update={"quantised": Quantised(bits=bits)})
    network = train_sgd(build_seeded(model), 0)
    weights = network.weights()
    real = dict(network.network.named_parameters())
    assert {n for n, p in real.items() if p.dim() >= 2} == set(weights)
    for (key, weight), step in zip(weights.items(), network.steps.tolist(), strict=True):
        values = weight.unique()
        assert len(values) <= 2**bits
        torch.testing.assert_close(values / step, (values / step - 0.5).round() + 0.5)
        inside = real[key].abs() < step * 2 ** (bits - 1)
        assert ((real[key] - weight).abs() <= 0.501 * step)[inside].all()
        assert step > 0


@pytest.mark.parametrize("bits", [1, 2, 8, 9, 16])
def test_quantised_values_are_symmetric_and_all_used(bits: int) -> None:
    network = build_seeded(Linear(family="linear", quantised=Quantised(bits=bits)))
    with torch.no_grad():
        reach = float(network.steps[0]) * 2 ** (bits - 1)
        real = network.network.get_parameter("1.weight")
        real.copy_(torch.linspace(-1.2 * reach, 1.2 * reach, real.numel()).view_as(real))
    values = network.weights()["1.weight"].detach().unique()
    assert len(values) == 2**bits if bits <= 8 else len(values) <= 2**bits
    torch.testing.assert_close(values, -values.flip(0))
    assert 0 not in values
    assert float(values[-1]) == pytest.approx(reach - float(network.steps[0]) / 2)


def test_gradient_is_not_changed_by_rounding() -> None:
    network = build_seeded(Mlp(family="mlp", width=6, depth=2, quantised=Quantised(bits=1)))
    with torch.no_grad():
        network.network.get_parameter("1.weight")[0] *= 50  # beyond the outermost value
    images, labels = torch.randn(6, *DIGIT), torch.arange(6)
    nn.functional.cross_entropy(network(images), labels).backward()
    leaves = {k: w.detach().requires_grad_() for k, w in network.weights().items()}
    outputs = functional_call(network.network, leaves, (images,))
    expected = torch.autograd.grad(
        nn.functional.cross_entropy(outputs, labels), list(leaves.values())
    )
    for name, gradient in zip(leaves, expected, strict=True):
        assert torch.equal(network.network.get_parameter(name).grad, gradient)


@pytest.mark.parametrize(("bits", "most_errors"), [(1, 45), (4, 0)])
def test_quantised_networks_learn_digits(bits: int, most_errors: int) -> None:
    model = Mlp(family="mlp", width=16, depth=2, init="he", quantised=Quantised(bits=bits))
    training = Adam(optimizer="adam", lr=1e-2, batch_size=32, epochs=60)
    assert run(training, 300, model=model, labels="original").n_errors <= most_errors


@pytest.mark.parametrize("kind", REPARAMETERIZATIONS)
def test_interrupted_training_runs_are_resumed_bitwise(kind: str, tmp_path: Path) -> None:
    model = Mlp(family="mlp", width=8, depth=1, norm="batch", **REPARAMETERIZATIONS[kind])
    training = Adam(optimizer="adam", lr=3e-2, batch_size=32, epochs=8)
    uninterrupted = run(training, 60, model=model)
    assert uninterrupted.loss_curve[-1] < uninterrupted.loss_curve[0]
    resumed = resume(training, 60, [6], tmp_path / "probe.ckpt", model=model)
    assert_outcomes_equal(uninterrupted, resumed)


@pytest.mark.parametrize(
    ("kind", "precision", "expected"),
    [
        ({}, "fp32", 32 * 650),
        ({}, "bf16", 32 * 650),
        ({}, "fp64", 64 * 650),
        ({"subspace": Subspace(dims=7, projection="sparse")}, "fp32", 32 * 7),
        ({"subspace": Subspace(dims=7)}, "fp64", 64 * 7),
        ({"low_rank": LowRank(rank=2)}, "fp32", 32 * 2 * (10 + 64)),
        ({"quantised": Quantised(bits=3)}, "fp32", 3 * 640 + 32 * 10),
        ({"quantised": Quantised(bits=3)}, "fp64", 3 * 640 + 64 * 10),
    ],
)
def test_bit_counts_by_hand(kind: dict, precision: str, expected: int) -> None:
    model = Linear(family="linear", **kind)
    assert count_parameters(model, DIGIT, 10, precision=precision).bits == expected


@pytest.mark.parametrize("kind", [*REPARAMETERIZATIONS, ""])
def test_counting_allocates_no_weights(kind: str) -> None:
    model = Mlp(family="mlp", width=10**7, depth=2, **REPARAMETERIZATIONS.get(kind, {}))
    plain = 64 * 10**7 + 10**7 + 10**14 + 10**7 + 10 * 10**7 + 10
    expected = {
        "": plain,
        "low rank": 2 * ((10**7 + 64) + 2 * 10**7 + (10 + 10**7)),
        "quantised": plain,
    }.get(kind, 20)
    assert count_parameters(model, DIGIT, 10).trained == expected
    vectors = 2 * 10**7 + 10
    bits = 2 * (plain - vectors) + 32 * vectors if kind == "quantised" else 32 * expected
    assert count_parameters(model, DIGIT, 10).bits == bits
