from __future__ import annotations

import pytest
import torch
from torch import nn

from flexhpc.config.sections.model import (
    Cnn,
    Efficientnet,
    Linear,
    Mixer,
    Mlp,
    Model,
    Resnet,
    Sized,
    Timm,
    Vit,
)
from flexhpc.config.sections.training import Adam, Sgd
from flexhpc.errors import PointError
from flexhpc.models import build, count_parameters
from flexhpc.models.initialisation import GAINS, linear_and_conv_layers
from flexhpc.training.optimizers import make_optimizer
from flexhpc.training.sync_norm import batch_norm_layers
from tests.sections import FAMILIES, choices, small_network
from tests.training.helpers import DIGIT, build_seeded, sample_shape

GREY, COLOUR = (1, 28, 28), (3, 32, 32)


@pytest.mark.parametrize(
    ("model", "shape", "expected"),
    [
        (Linear(family="linear"), GREY, 784 * 10 + 10),
        (Linear(family="linear", bias=False), (20,), 20 * 10),
        (Mlp(family="mlp", width=16, depth=2), GREY, 784 * 16 + 16 + 16 * 16 + 16 + 16 * 10 + 10),
        (Mlp(family="mlp", width=4, depth=1, norm="batch"), (6,), 6 * 4 + 4 + 8 + 4 * 10 + 10),
        (Cnn(family="cnn", width=8, depth=3), GREY, 80 + (72 * 16 + 16) + (144 * 32 + 32) + 330),
        (Cnn(family="cnn", width=4, depth=1, bias=False), COLOUR, 27 * 4 + 40),
        (Vit(family="vit", width=24, depth=4, heads=3, patch=7), GREY, 30_826),
        (
            Vit(family="vit", width=24, depth=4, heads=3, patch=7, mlp_ratio=2.0), GREY,
            30_826 - 4 * (2 * 24 * 48 + 48),
        ),
        (Cnn(family="cnn", width=4, depth=2, kernel=5), COLOUR, 304 + 808 + 90),
        (
            Mixer(family="mixer", width=8, depth=2, patch=7), GREY,
            (49 * 8 + 8) + 2 * (32 + (16 * 4 + 4) + (4 * 16 + 16) + (8 * 32 + 32) + (32 * 8 + 8))
            + 16 + (8 * 10 + 10),
        ),
        (Efficientnet(family="efficientnet", width=32), COLOUR, 4_020_358),
    ],
)  # fmt: skip
def test_parameter_counts_by_hand(model: Model, shape: tuple, expected: int) -> None:
    assert count_parameters(model, shape, 10).trained == expected
    network = build(model, shape, 10)
    assert sum(p.numel() for p in network.parameters()) == expected


@pytest.mark.parametrize("shape", [GREY, COLOUR, DIGIT])
@pytest.mark.parametrize("depth", [2, 3, 8])
def test_resnets_have_the_requested_depth(shape: tuple, depth: int) -> None:
    model = Resnet(family="resnet", width=8, depth=depth)
    network = build(model, shape, 7).eval()
    assert network(torch.randn(2, *shape)).shape == (2, 7)
    blocks = [m for m in network.modules() if type(m).__name__ == "BasicBlock"]
    assert len(blocks) == depth
    assert count_parameters(model, shape, 7).trained == sum(p.numel() for p in network.parameters())


IMAGE_FAMILIES = {
    name: cls for name, cls in FAMILIES.items() if not small_network(name).predicts_tokens
}
ACTIVATION_LAYERS = {
    "relu": "ReLU", "leaky_relu": "LeakyReLU", "tanh": "Tanh", "identity": "Identity",
    "gelu": "GELU", "silu": "SiLU",
}  # fmt: skip


@pytest.mark.parametrize(
    ("family", "activation"),
    [(name, x) for name, cls in IMAGE_FAMILIES.items() for x in choices(cls, "activation")],
)
def test_families_train_with_every_activation(family: str, activation: str | None) -> None:
    for shape in (GREY, COLOUR, DIGIT) if activation in (None, "relu") else (DIGIT,):
        network = build_seeded(small_network(family, activation=activation), shape)
        names = {type(module).__name__ for module in network.modules()}
        assert activation is None or any(ACTIVATION_LAYERS[activation] in name for name in names)
        before = [p.detach().clone() for p in network.parameters()]
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        for _ in range(2):  # if the head is initialised with zeros, the first step changes only it
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(network(torch.randn(4, *shape)), torch.arange(4))
            loss.backward()
            assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
            optimizer.step()
        changed = [not torch.equal(p, q) for p, q in zip(network.parameters(), before, strict=True)]
        assert sum(changed) > len(changed) / 2


@pytest.mark.parametrize("family", FAMILIES)
def test_all_initial_values_depend_on_the_seed_only(family: str) -> None:
    """Except constants, such as the zeros of biases."""
    model = small_network(family)
    networks = [build_seeded(model, sample_shape(model), seed) for seed in (0, 0, 1)]
    for first, same, other in zip(*(n.state_dict().values() for n in networks), strict=True):
        assert torch.equal(first, same)
        assert first.min() == first.max() or not torch.equal(first, other)


@pytest.mark.parametrize(
    ("family", "norm"), [(name, x) for name, cls in FAMILIES.items() for x in choices(cls, "norm")]
)
def test_batch_norm_agrees_with_the_layers(family: str, norm: str | None) -> None:
    model = small_network(family, norm=norm)
    network = build_seeded(model, sample_shape(model))
    assert model.batch_norm == bool(batch_norm_layers(network))


@pytest.mark.parametrize(
    ("model", "shape", "total", "weighted"),
    [
        (Linear(family="linear", init="he"), DIGIT, 63.80171772, 3.028585678),
        (Mlp(family="mlp", init="he", width=16, depth=2), DIGIT, 258.4897072, 1.614508752),
        (
            Mlp(family="mlp", init="he", width=16, depth=2, activation="tanh", norm="layer"), (20,),
            253.0185606, 13.91643349,
        ),
        (Cnn(family="cnn", init="he", width=8), GREY, 654.9152413, -7.486134179),
        (
            Cnn(family="cnn", init="he", width=8, norm="batch", activation="gelu"), COLOUR,
            732.5561736, 24.04352334,
        ),
        (Vit(family="vit", width=12, depth=2), GREY, 149.5524456, 5.371034922),
        (Resnet(family="resnet", width=8, depth=3), COLOUR, 1762.172799, -15.17318476),
    ],
)  # fmt: skip
def test_initial_weights_are_unchanged(
    model: Model, shape: tuple, total: float, weighted: float
) -> None:
    """Two sums over all weights equal the recorded sums up to rounding, which differs by CPU."""
    network = build_seeded(model, shape, seed=1234)
    weights = torch.cat([p.detach().double().flatten() for p in network.parameters()])
    ramp = torch.linspace(-1, 1, len(weights), dtype=torch.float64)
    assert float(weights.abs().sum()) == pytest.approx(total, rel=1e-6)
    assert float((weights * ramp).sum()) == pytest.approx(weighted, rel=1e-5)


@pytest.mark.parametrize("family", ["mlp", "cnn"])
def test_gain_scales_all_weights_except_the_head(family: str) -> None:
    networks = [build_seeded(small_network(family, gain=gain), GREY) for gain in (None, 3.0)]
    plain, scaled = ([p for p in network.parameters() if p.dim() > 1] for network in networks)
    for weight, scaled_weight in zip(plain[:-1], scaled[:-1], strict=True):
        torch.testing.assert_close(scaled_weight, weight * 3.0)
    assert torch.equal(plain[-1], scaled[-1])


@pytest.mark.parametrize(("norm", "kind"), [("batch", nn.BatchNorm2d), ("layer", nn.GroupNorm)])
def test_norm_layers_of_resnet_and_cnn(norm: str, kind: type) -> None:
    network = build(Resnet(family="resnet", width=4, depth=2, norm=norm), DIGIT, 10)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d | nn.GroupNorm)]
    assert len(norms) == 3 + 4 + 1  # stem, two blocks, one shortcut
    assert all(isinstance(m, kind) for m in norms)
    assert all(m.num_groups == 1 for m in norms if isinstance(m, nn.GroupNorm))
    without = build(Resnet(family="resnet", width=4, depth=2, norm="none"), DIGIT, 10)
    assert not any(isinstance(m, nn.BatchNorm2d | nn.GroupNorm) for m in without.modules())
    cnn = build(Cnn(family="cnn", width=4, depth=2, norm=norm), GREY, 10)
    assert sum(isinstance(m, kind) for m in cnn.modules()) == 2


def test_sizes_of_feature_maps() -> None:
    for kernel in (1, 3, 5, 11):
        network = build(Cnn(family="cnn", width=4, depth=3, kernel=kernel), GREY, 10)
        assert network.body(torch.randn(1, *GREY)).shape[2:] == (4, 4), "halved three times"
        assert network.body[0].kernel_size == (kernel, kernel)
    model = Efficientnet(family="efficientnet", width=8, depth=1)
    for side, expected in ((8, 8), (64, 64), (66, 33)):
        network = build(model, (1, side, side), 10).eval()
        assert network.conv_stem(torch.randn(1, 1, side, side)).shape[2:] == (expected, expected)
        assert sum(len(stage) for stage in network.blocks) == 7


@pytest.mark.parametrize(
    ("model", "shape", "expected"),
    [
        (Vit(family="vit", width=12, patch=5), GREY, "5 does not divide the 28x28"),
        (Mixer(family="mixer", width=12, patch=5), GREY, "5 does not divide the 28x28"),
        (Mixer(family="mixer", width=1), GREY, "model.width: 1 is too small"),
        (Cnn(family="cnn", width=4), (20,), "requires images, but samples have shape"),
        (Timm(family="timm:nosuchnet"), GREY, "timm has no model 'nosuchnet'"),
        (Timm(family="timm:resnet18", kwargs={"colour": 1}), GREY, "rejects"),
        (Timm(family="timm:vit_tiny_patch16_224"), GREY, r"accept samples of shape \(1, 28, 28"),
        (Vit(family="vit", match_params=400), GREY, r"cannot match 400: .* \(width 3\) has 1\d"),
        (
            Mlp(family="mlp", depth=0, match_params=700), DIGIT,
            r"cannot match 700: mlp of this depth has only",
        ),
        (Vit(family="vit", match_params=10_000, patch=5), GREY, "model.patch: 5 does not divide"),
        (
            Cnn(family="cnn", width=4, depth=3, scaling="depth", scale=5), GREY,
            "model.scale: 5 results in depth 15, which cnn does not support .*or equal to 12",
        ),
        (
            Mlp(family="mlp", width=4, scaling="compound", scale=10_000), GREY,
            "model.scale: 10000 results in width .* use another scale",
        ),
        (
            Mlp(family="mlp", width=4, scaling="compound", scale=1), (20,),
            r"model.scaling: compound also resizes images, but samples have shape \(20,\)",
        ),
    ],
)  # fmt: skip
def test_unsupported_model_is_one_error_message(model: Model, shape: tuple, expected: str) -> None:
    with pytest.raises(PointError, match=expected) as caught:
        count_parameters(model, shape, 10)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "family", [name for name, cls in IMAGE_FAMILIES.items() if issubclass(cls, Sized)]
)
def test_distribution_of_each_initialisation(family: str) -> None:
    """The default of torch is bounded by 1 / sqrt(fan_in)."""
    networks = {
        init: build_seeded(small_network(family, init=init), GREY)
        for init in (None, "torch", "he", "lecun", "orthogonal")
    }
    plain = networks[None]
    for weight, default in zip(plain.parameters(), networks["torch"].parameters(), strict=True):
        assert torch.equal(weight, default)
    if family in ("mlp", "cnn"):
        for layer in linear_and_conv_layers(plain):
            bound = layer.weight[0].numel() ** -0.5
            assert 0.8 * bound < float(layer.weight.detach().abs().max()) <= bound
            assert float(layer.bias.detach().abs().max()) > 0
    for init in ("he", "lecun", "orthogonal"):
        for layer in linear_and_conv_layers(networks[init]):
            assert layer.bias is None or not layer.bias.any()
    he_layers, lecun_layers = (linear_and_conv_layers(networks[init]) for init in ("he", "lecun"))
    if len(he_layers) == 1:
        return
    widest = max(he_layers[:-1], key=lambda layer: layer.weight.numel())
    index = he_layers.index(widest)
    he, lecun = (layers[index].weight.detach() for layers in (he_layers, lecun_layers))
    fan_in = he[0].numel()
    assert float(lecun.std()) == pytest.approx(fan_in**-0.5, rel=0.1)
    gain = GAINS[getattr(small_network(family), "activation", "relu")]
    assert float(he.std() / lecun.std()) == pytest.approx(gain, rel=1e-4)


def test_orthogonal_weights_are_orthogonal() -> None:
    network = build(Mlp(family="mlp", width=20, depth=2, init="orthogonal", gain=1.5), DIGIT, 10)
    for layer, gain in zip(linear_and_conv_layers(network), (1.5, 1.5, 1.0), strict=True):
        weight = layer.weight.detach()
        torch.testing.assert_close(weight @ weight.T, gain**2 * torch.eye(len(weight)))


def test_mup_scales_relative_to_its_base_width() -> None:
    """Yang et al. 2022, table 3: variance of the last layer, rates of each layer."""
    plain = build_seeded(Mlp(family="mlp", width=32, init="he"))
    base = build_seeded(Mlp(family="mlp", width=32, init="mup", base_width=32))
    wide = build_seeded(Mlp(family="mlp", width=32, init="mup", base_width=8))
    for weight, base_weight in zip(plain.parameters(), base.parameters(), strict=True):
        assert torch.equal(weight, base_weight)
        assert base_weight.lr_factors == (1.0, 1.0)
    first, hidden, last = linear_and_conv_layers(wide)
    plain_first, _, plain_last = linear_and_conv_layers(plain)
    torch.testing.assert_close(last.weight, plain_last.weight / 2)
    assert torch.equal(first.weight, plain_first.weight)
    assert [layer.weight.lr_factors for layer in (first, hidden, last)] == [
        (4.0, 1.0), (1.0, 0.25), (0.25, 0.25),
    ]  # fmt: skip
    assert [layer.bias.lr_factors for layer in (first, hidden, last)] == [
        (4.0, 1.0), (4.0, 1.0), (1.0, 1.0),
    ]  # fmt: skip
    for training, index in ((Sgd(optimizer="sgd", lr=0.5), 0), (Adam(optimizer="adam"), 1)):
        optimizer = make_optimizer(training, wide.parameters())
        for group in optimizer.param_groups:
            assert {p.lr_factors[index] for p in group["params"]} == {group["lr_factor"]}


def test_update_with_mup_does_not_depend_on_width() -> None:
    """One step of Adam changes the outputs equally at any width; with he more at larger widths."""
    torch.manual_seed(0)
    images, labels = torch.randn(64, *DIGIT), torch.arange(64) % 10
    change = {}
    for init in ("he", "mup"):
        for width in (64, 1024):
            network = build_seeded(Mlp(family="mlp", width=width, init=init), seed=1)
            training = Adam(optimizer="adam", lr=1e-3)
            optimizer = make_optimizer(training, network.parameters())
            for group in optimizer.param_groups:
                group["lr"] = training.lr * group["lr_factor"]
            before = network(images).detach()
            nn.functional.cross_entropy(network(images), labels).backward()
            optimizer.step()
            change[init, width] = float((network(images).detach() - before).std())
    assert change["he", 1024] > 3 * change["he", 64]
    assert change["mup", 1024] < 2 * change["mup", 64]
