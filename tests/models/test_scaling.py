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
    Timm,
    Vit,
)
from flexhpc.errors import PointError
from flexhpc.models import build, concrete, count_parameters
from flexhpc.models.scaling import _ratio, resolution

GREY, COLOUR, DIGIT = (1, 28, 28), (3, 32, 32), (1, 8, 8)


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
def test_rules_by_hand(model: Sized, width: int, depth: int) -> None:
    result = concrete(model, GREY, 10)
    assert (result.width, result.depth) == (width, depth)
    expected = {"width": width, "depth": depth, "scaling": None, "scale": None}
    assert result == model.model_copy(update=expected)


def test_the_vit_shape_rule_by_hand() -> None:
    """width 192 x 10^0.22 = 318.6, depth 12 x 10^0.45 = 33.8, units 768 x 10^0.6 = 3057.4."""
    model = Vit(family="vit", width=192, depth=12, scaling="vit_shape", scale=10)
    result = concrete(model, COLOUR, 10)
    assert (result.width, result.depth) == (318, 34)
    with torch.device("meta"):
        network = build(model, COLOUR, 10)
    assert len(network.blocks) == 34
    assert {block.mlp.fc1.weight.shape for block in network.blocks} == {(3057, 318)}


@given(st.integers(1, 10**7), st.integers(1, 10**5))
def test_units_survive_the_way_through_a_ratio(units: int, width: int) -> None:
    assert int(width * _ratio(units, width)) == units


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
    assert resolution(model, shape) == expected
    network = build(model, shape, 10).eval()
    inner = network if expected == shape else network[1]
    seen = []
    inner.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    assert network(torch.randn(2, *shape)).shape == (2, 10)
    assert seen == [(2, *expected)]


def test_a_resized_constant_stays_constant_and_a_ramp_stays_a_ramp() -> None:
    resize = build(Mlp(family="mlp", width=2, scaling="compound", scale=5), DIGIT, 10)[0]
    assert torch.equal(resize(torch.ones(1, 1, 8, 8)), torch.ones(1, 1, 16, 16))
    row = resize(torch.arange(8.0).expand(1, 1, 8, 8))[0, 0, 3]
    torch.testing.assert_close(row[1:-1].diff(), torch.full((13,), 0.5))


@pytest.mark.parametrize(
    ("model", "wanted", "widths"),
    [
        (Mlp(family="mlp", depth=3, match_params=1), [600, 1_000, 4_321], range(1, 60)),
        (Cnn(family="cnn", depth=2, match_params=1), [40, 1_000, 5_000], range(1, 50)),
        (Vit(family="vit", depth=1, heads=3, match_params=1), [1_000, 9_876], range(3, 60, 3)),
        (Mixer(family="mixer", depth=1, match_params=1), [300, 1_000, 5_000], range(2, 50)),
        (Resnet(family="resnet", depth=2, match_params=1), [700, 9_000], range(2, 30, 2)),
        (
            Efficientnet(family="efficientnet", depth=1, match_params=1),
            [127_000, 400_000], range(8, 41, 8),
        ),
    ],
)  # fmt: skip
def test_match_params_takes_the_closest_width(model: Sized, wanted: list[int], widths) -> None:
    plain = model.model_copy(update={"match_params": None})
    counts = {
        width: count_parameters(plain.model_copy(update={"width": width}), DIGIT, 10)
        for width in widths
    }
    for number in wanted:
        result = concrete(model.model_copy(update={"match_params": number}), DIGIT, 10)
        assert result.match_params is None
        closest = min(counts, key=lambda width: (abs(counts[width] - number), width))
        assert result.width == closest < max(widths)


@given(st.integers(50, 10**6))
def test_match_params_takes_the_closest_width_of_one_layer(number: int) -> None:
    """An mlp of one hidden layer on 64 features has 75 w + 10 parameters; ties go to the less."""
    width = concrete(Mlp(family="mlp", depth=1, match_params=number), DIGIT, 10).width
    below = max(1, (number - 10) // 75)
    assert width == min((below, below + 1), key=lambda w: abs(75 * w + 10 - number))


@pytest.mark.parametrize("lookups", [0, 1, 2])
def test_looking_a_width_up_draws_no_random_numbers(lookups: int) -> None:
    model = Mlp(family="mlp", match_params=3_333)
    for _ in range(lookups):
        concrete(model, GREY, 10)
    torch.manual_seed(7)
    network = build(model, GREY, 10)
    torch.manual_seed(7)
    plain = build(concrete(model, GREY, 10), GREY, 10)
    for one, other in zip(network.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other)


def test_match_params_counts_the_network_below_a_reparameterization() -> None:
    plain = concrete(Mlp(family="mlp", match_params=2_000), DIGIT, 10)
    for over in ({"subspace": Subspace(dims=5)}, {"low_rank": LowRank(rank=1)}):
        model = Mlp(family="mlp", match_params=2_000, **over)
        assert concrete(model, DIGIT, 10) == plain.model_copy(update=over)


def test_models_of_one_size_stay_as_they_are() -> None:
    for model in (
        Linear(family="linear"),
        Timm(family="timm:resnet18", kwargs={"stem_width": 8}),
        Mlp(family="mlp", width=3),
    ):
        assert concrete(model, GREY, 10) is model


@pytest.mark.parametrize(
    ("model", "shape", "expected"),
    [
        (
            Vit(family="vit", match_params=400), GREY,
            r"model.match_params: 400 .* \(width 3\) has 1\d\d\d parameters",
        ),
        (Mlp(family="mlp", depth=0, match_params=700), DIGIT, "no width of this mlp .* has 650"),
        (Vit(family="vit", match_params=10_000, patch=5), GREY, "model.patch: 5 does not divide"),
        (
            Cnn(family="cnn", width=4, depth=3, scaling="depth", scale=5), GREY,
            "model.scale: 5 makes depth 15, and cnn refuses that .*less than or equal to 12",
        ),
        (
            Mlp(family="mlp", width=4, scaling="compound", scale=10_000), GREY,
            "model.scale: 10000 makes width .* use another scale",
        ),
        (
            Mlp(family="mlp", width=4, scaling="compound", scale=1), (20,),
            r"model.scaling: compound resizes images, but a sample is \(20,\)",
        ),
    ],
)  # fmt: skip
def test_sizes_that_cannot_be_are_one_line(model: Sized, shape: tuple, expected: str) -> None:
    with pytest.raises(PointError, match=expected) as caught:
        count_parameters(model, shape, 10)
    assert "\n" not in str(caught.value)
