from __future__ import annotations

import pytest
import torch
from torch import nn

from flexhpc.errors import PointError
from flexhpc.models import build, count_parameters
from flexhpc.models.plain import ACTIVATIONS
from flexhpc.spec.sections import Cnn, Linear, Mlp, Model, Resnet, Timm, Vit

GREY, COLOUR = (1, 28, 28), (3, 32, 32)


@pytest.mark.parametrize(
    ("model", "shape", "expected"),
    [
        (Linear(family="linear"), GREY, 784 * 10 + 10),
        (Linear(family="linear", bias=False), (20,), 20 * 10),
        (Mlp(family="mlp", width=16, depth=2), GREY, 784 * 16 + 16 + 16 * 16 + 16 + 16 * 10 + 10),
        (Mlp(family="mlp", width=16, depth=0), GREY, 7850),
        (Mlp(family="mlp", width=4, depth=1, norm="batch"), (6,), 6 * 4 + 4 + 8 + 4 * 10 + 10),
        (
            Cnn(family="cnn", width=8, depth=3),
            GREY,
            (9 * 8 + 8) + (72 * 16 + 16) + (144 * 32 + 32) + 32 * 10 + 10,
        ),
        (Cnn(family="cnn", width=4, depth=1, bias=False), COLOUR, 27 * 4 + 40),
        (
            Timm(
                family="timm:vit_tiny_patch16_224",
                kwargs={
                    "img_size": 28, "patch_size": 7, "embed_dim": 24, "depth": 4, "num_heads": 3
                },
            ),
            GREY,
            30_826,
        ),
        (Vit(family="vit", width=24, depth=4, heads=3, patch=7), GREY, 30_826),
    ],
)  # fmt: skip
def test_parameter_counts_by_hand(model: Model, shape: tuple, expected: int) -> None:
    assert count_parameters(model, shape, 10) == expected
    network = build(model, shape, 10)
    assert sum(p.numel() for p in network.parameters()) == expected


@pytest.mark.parametrize("shape", [GREY, COLOUR, (1, 8, 8)])
@pytest.mark.parametrize("depth", [2, 3, 8])
def test_resnets_of_any_depth_and_image(shape: tuple, depth: int) -> None:
    model = Resnet(family="resnet", width=8, depth=depth)
    network = build(model, shape, 7).eval()
    assert network(torch.randn(2, *shape)).shape == (2, 7)
    blocks = [m for m in network.modules() if type(m).__name__ == "BasicBlock"]
    assert len(blocks) == depth
    assert count_parameters(model, shape, 7) == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("family", ["mlp", "cnn", "vit", "resnet"])
def test_every_activation_in_every_family(activation: str, family: str) -> None:
    sizes = {"mlp": {}, "cnn": {}, "vit": {"heads": 2, "depth": 1}, "resnet": {"depth": 2}}[family]
    cls = {"mlp": Mlp, "cnn": Cnn, "vit": Vit, "resnet": Resnet}[family]
    network = build(cls(family=family, width=8, activation=activation, **sizes), GREY, 10)
    out = network.eval()(torch.randn(3, *GREY))
    assert out.shape == (3, 10)
    names = {"relu": "ReLU", "leaky_relu": "LeakyReLU", "tanh": "Tanh", "identity": "Identity",
             "gelu": "GELU"}  # fmt: skip
    used = {type(module).__name__ for module in network.modules()}
    assert any(names[activation] in name for name in used)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "tanh", "identity", "gelu"])
def test_initialisation_keeps_the_size_of_a_signal(activation: str) -> None:
    torch.manual_seed(0)
    network = build(Mlp(family="mlp", width=512, depth=8, activation=activation), (512,), 10)
    out = network(torch.randn(256, 512))
    assert 0.3 < float(out.detach().std()) < 2.0


def test_the_norm_is_the_one_asked_for() -> None:
    for norm, kind in (("batch", nn.BatchNorm2d), ("layer", nn.GroupNorm)):
        network = build(Cnn(family="cnn", width=4, depth=2, norm=norm), GREY, 10)
        assert sum(isinstance(m, kind) for m in network.modules()) == 2


@pytest.mark.parametrize(
    ("model", "shape", "expected"),
    [
        (Vit(family="vit", width=12, patch=5), GREY, "5 does not divide the 28x28"),
        (Cnn(family="cnn", width=4), (20,), "takes images"),
        (Timm(family="timm:nosuchnet"), GREY, "timm has no model 'nosuchnet'"),
        (Timm(family="timm:resnet18", kwargs={"colour": 1}), GREY, "refuses"),
        (Timm(family="timm:vit_tiny_patch16_224"), GREY, r"cannot take \(1, 28, 28\)"),
    ],
)
def test_models_that_cannot_be_built_are_one_line(
    model: Model, shape: tuple, expected: str
) -> None:
    with pytest.raises(PointError, match=expected) as caught:
        count_parameters(model, shape, 10)
    assert "\n" not in str(caught.value)
