from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flexhpc.config.sections.model import (
    Cnn,
    Efficientnet,
    Linear,
    LowRank,
    Mixer,
    Mlp,
    Resnet,
    Sized,
    Subspace,
    Vit,
)
from flexhpc.models import build, count_parameters, resolve_size
from flexhpc.models.scaling import scaled_shape
from tests.sections import FAMILIES, small_network
from tests.training.helpers import DIGIT, build_seeded, sample_shape

GREY, COLOUR = (1, 28, 28), (3, 32, 32)


@pytest.mark.parametrize(
    ("model", "width", "depth"),
    [
        (Mlp(family="mlp", width=10, depth=3, scaling="width", scale=1.26), 13, 3),
        (Mlp(family="mlp", width=10, depth=3, scaling="depth", scale=2.5), 10, 8),
        (Mlp(family="mlp", width=10, depth=0, scaling="both", scale=2.0), 20, 0),
        (Mlp(family="mlp", width=10, depth=3, scaling="both", scale=0.0), 1, 1),
        (Cnn(family="cnn", width=8, depth=2, scaling="both", scale=1.3), 10, 3),
        (Resnet(family="resnet", width=8, depth=8, scaling="both", scale=1.4), 12, 11),
        (Resnet(family="resnet", width=8, depth=8, scaling="width", scale=0.01), 2, 8),
        (Vit(family="vit", width=24, depth=4, heads=3, scaling="width", scale=1.4), 33, 4),
        (Mixer(family="mixer", width=16, depth=4, scaling="compound", scale=1), 18, 5),
        (Efficientnet(family="efficientnet", width=32, scaling="compound", scale=2), 40, 23),
        (Efficientnet(family="efficientnet", width=32, scaling="width", scale=0.1), 8, 16),
    ],
)
def test_scaling_rules_by_hand(model: Sized, width: int, depth: int) -> None:
    expected = {"width": width, "depth": depth, "scaling": None, "scale": None}
    assert resolve_size(model, GREY, 10) == model.model_copy(update=expected)


def test_vit_shape_rule_by_hand() -> None:
    """width 192 x 10^0.22 = 318.6, depth 12 x 10^0.45 = 33.8, units 768 x 10^0.6 = 3057.4."""
    model = Vit(family="vit", width=192, depth=12, scaling="vit_shape", scale=10)
    result = resolve_size(model, COLOUR, 10)
    assert (result.width, result.depth) == (318, 34)
    with torch.device("meta"):
        network = build(model, COLOUR, 10)
    assert len(network.blocks) == 34
    assert {block.mlp.fc1.weight.shape for block in network.blocks} == {(3057, 318)}


@pytest.mark.parametrize(
    ("model", "shape", "expected"),
    [
        (Cnn(family="cnn", width=4, scaling="compound", scale=2), COLOUR, (3, 42, 42)),
        (Cnn(family="cnn", width=4, scaling="compound", scale=1), (1, 20, 30), (1, 23, 35)),
        (Vit(family="vit", width=12, scaling="compound", scale=1), GREY, (1, 32, 32)),
        (Mixer(family="mixer", width=4, patch=5, scaling="compound", scale=0), GREY, (1, 30, 30)),
        (Cnn(family="cnn", width=4, scaling="both", scale=2), COLOUR, COLOUR),
        (Linear(family="linear"), (20,), (20,)),
    ],
)
def test_compound_scaling_resizes_inside_the_network(model, shape, expected) -> None:
    assert scaled_shape(model, shape) == expected
    network = build(model, shape, 10).eval()
    inner = network if expected == shape else network[1]
    input_shapes = []
    inner.register_forward_pre_hook(lambda _, inputs: input_shapes.append(tuple(inputs[0].shape)))
    assert network(torch.randn(2, *shape)).shape == (2, 10)
    assert input_shapes == [(2, *expected)]


def test_resize_keeps_constants_and_ramps() -> None:
    resize = build(Mlp(family="mlp", width=2, scaling="compound", scale=5), DIGIT, 10)[0]
    assert torch.equal(resize(torch.ones(1, 1, 8, 8)), torch.ones(1, 1, 16, 16))
    row = resize(torch.arange(8.0).expand(1, 1, 8, 8))[0, 0, 3]
    torch.testing.assert_close(row[1:-1].diff(), torch.full((13,), 0.5))


@pytest.mark.parametrize(
    ("model", "targets", "widths"),
    [
        (Mlp(family="mlp", depth=3, match_params=1), [600, 4_321], range(1, 60)),
        (Cnn(family="cnn", depth=2, match_params=1), [40, 5_000], range(1, 50)),
        (Vit(family="vit", depth=1, heads=3, match_params=1), [1_000, 4_876], range(3, 40, 3)),
        (Mixer(family="mixer", depth=1, match_params=1), [300, 2_000], range(2, 30)),
        (Resnet(family="resnet", depth=2, match_params=1), [700, 9_000], range(2, 30, 2)),
        (
            Efficientnet(family="efficientnet", depth=1, match_params=1),
            [127_000, 400_000], range(8, 41, 8),
        ),
    ],
)  # fmt: skip
def test_match_params_chooses_the_closest_width(model: Sized, targets: list[int], widths) -> None:
    plain = model.model_copy(update={"match_params": None})
    counts = {
        width: count_parameters(plain.model_copy(update={"width": width}), DIGIT, 10).trained
        for width in widths
    }
    for number in targets:
        result = resolve_size(model.model_copy(update={"match_params": number}), DIGIT, 10)
        assert result.match_params is None
        closest = min(counts, key=lambda width: (abs(counts[width] - number), width))
        assert result.width == closest < max(widths)


@pytest.mark.parametrize("family", [n for n, cls in FAMILIES.items() if issubclass(cls, Sized)])
def test_every_family_with_a_width_can_be_scaled_and_matched(family: str) -> None:
    model = small_network(family)
    shape = sample_shape(model)
    count = count_parameters(model, shape, 10).trained
    matched = model.model_copy(update={"width": None, "match_params": count})
    assert resolve_size(matched, shape, 10) == model
    for rule in ("width", "depth", "both"):
        scaled = model.model_copy(update={"scaling": rule, "scale": 3.1})
        assert count_parameters(scaled, shape, 10).trained > count


@given(st.integers(50, 10**6))
def test_match_params_chooses_the_closest_width_of_one_layer(number: int) -> None:
    """An mlp of one hidden layer on 64 features has 75 w + 10 parameters."""
    width = resolve_size(Mlp(family="mlp", depth=1, match_params=number), DIGIT, 10).width
    below = max(1, (number - 10) // 75)
    assert width == min((below, below + 1), key=lambda w: abs(75 * w + 10 - number))


def test_match_params_draws_no_random_numbers_and_ignores_reparameterizations() -> None:
    model = Mlp(family="mlp", match_params=3_333)
    plain = resolve_size(model, GREY, 10)
    matched_network, plain_network = (build_seeded(config, GREY) for config in (model, plain))
    for first, second in zip(matched_network.parameters(), plain_network.parameters(), strict=True):
        assert torch.equal(first, second)
    for keys in ({"subspace": Subspace(dims=5)}, {"low_rank": LowRank(rank=1)}):
        resolved = resolve_size(model.model_copy(update=keys), GREY, 10)
        assert resolved == plain.model_copy(update=keys)
