"""Test ``data.inputs``, ``standardise``, ``side`` and ``colour``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from flexhpc.data.dataset import Split
from flexhpc.data.images import resize_and_crop, with_size_and_colour
from flexhpc.data.inputs import TEST, TRAIN, Inputs
from tests.data.test_tables import load_table
from tests.data.writers import RNG, load, write_images, write_text

ALL = np.arange(1_797)


def plain_and_changed(root: Path, inputs: str) -> tuple[np.ndarray, np.ndarray]:
    """Return 40 images (40, 3, 30 pixels), original and with ``data.inputs``."""
    write_images(root, {"a": 20, "b": 20})
    plain, changed = (
        load("image_folder", 5, root=root, inputs=kind).select_inputs(np.arange(40))
        for kind in ("original", inputs)
    )
    return plain.reshape(40, 3, 30), changed.reshape(40, 3, 30)


def test_permuted_is_one_permutation_for_all_samples_and_channels(tmp_path: Path) -> None:
    plain, mixed = plain_and_changed(tmp_path, "permuted")
    origins = [
        [p for p in range(30) if (plain[:, :, p] == mixed[:, :, q]).all()] for q in range(30)
    ]
    assert sorted(p for matches in origins for p in matches) == list(range(30)), "a permutation"
    assert [matches[0] for matches in origins] != list(range(30))


def test_permuted_each_is_a_different_permutation_per_sample(tmp_path: Path) -> None:
    orders = set()
    for before, after in zip(*plain_and_changed(tmp_path, "permuted_each"), strict=True):
        positions = {tuple(before[:, p]): p for p in range(30)}
        order = tuple(positions[tuple(after[:, p])] for p in range(30))
        assert sorted(order) == list(range(30)), "all channels of a pixel move together"
        orders.add(order)
    assert len(orders) == 40


@pytest.mark.parametrize("kind", ["gaussian", "permuted", "permuted_each", "original"])
def test_inputs_of_a_sample_do_not_depend_on_the_batch(kind: str) -> None:
    samples = load("digits", 2, inputs=kind)
    inputs = samples.select_inputs(ALL)
    ids = np.array([1_700, 3, 44, 3])
    np.testing.assert_array_equal(samples.select_inputs(ids), inputs[ids])
    np.testing.assert_array_equal(load("digits", 2, inputs=kind).select_inputs(ids), inputs[ids])
    assert inputs.dtype == np.float32
    if kind != "original":
        other_seed = load("digits", 3, inputs=kind).select_inputs(ids)
        assert not np.array_equal(other_seed, inputs[ids])


def test_gaussian_images_have_the_moments_of_the_training_set() -> None:
    noise = load("digits", inputs="gaussian").select_inputs(ALL)
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 1) < 0.01
    assert len(np.unique(noise)) > 0.99 * noise.size
    plain = load("digits").select_inputs(ALL)
    assert abs(np.corrcoef(noise.ravel(), plain.ravel())[0, 1]) < 0.02


def test_gaussian_tables_have_the_moments_of_each_feature(tmp_path: Path) -> None:
    rows = [f"{RNG.normal(50, 9)},0.1,{'xyz'[i % 3]},{i % 2}" for i in range(4_000)]
    path = write_text(tmp_path / "t.csv", "\n".join(["a,same,b,y", *rows]))
    samples = load_table(path)
    plain = samples.select_inputs(np.arange(4_000))
    noise = load_table(path, inputs="gaussian").select_inputs(np.arange(4_000))
    assert set(np.unique(plain[:, 2:])) == {0, 1}, "one-hot features are not standardised"
    np.testing.assert_allclose(noise.mean(axis=0), plain.mean(axis=0), atol=0.06)
    np.testing.assert_allclose(noise.std(axis=0), plain.std(axis=0), atol=0.04)
    for values in (plain, noise):
        np.testing.assert_array_equal(values[:, 1], 0)
    np.testing.assert_array_equal(samples.inputs.deviation[1], 1)


@pytest.mark.parametrize("kind", ["gaussian", "permuted_each", "permuted"])
def test_training_and_test_set_share_only_the_fixed_permutation(kind: str) -> None:
    rows = np.arange(20, dtype=np.float32).reshape(2, 10)
    zero, one = np.float32(0), np.float32(1)
    train, test = (
        Inputs(
            rows=rows, mean=zero, deviation=one, centre=zero, spread=one, kind=kind, seed=1,
            split=split,
        ).select(np.arange(2))
        for split in (TRAIN, TEST)
    )  # fmt: skip
    assert np.array_equal(train, test) == (kind == "permuted")


@settings(max_examples=20)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_resized_images_are_square_and_centred(width: int, height: int, side: int) -> None:
    resized = resize_and_crop(Image.new("RGB", (width, height), (7, 8, 9)), side)
    assert resized.size == (side, side)
    assert (np.asarray(resized) == (7, 8, 9)).all()
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = 200
    assert (np.asarray(resize_and_crop(Image.fromarray(pixels), 10)) == 200).all()


def test_downscaling_averages_pixels() -> None:
    board = np.indices((32, 32)).sum(axis=0) % 2 * 255
    split = Split.from_arrays(board.astype(np.uint8)[None, None], np.zeros(1))
    small = with_size_and_colour(split, 8, None).gather()
    assert small.shape == (1, 1, 8, 8)
    assert np.all(np.abs(small.astype(int) - 127) < 10)


def test_side_and_colour_convert_images() -> None:
    plain = load("digits").inputs.rows
    samples = load("digits", side=5, colour="rgb")
    assert samples.shape == (3, 5, 5)
    assert samples.inputs.rows.dtype == np.uint8
    assert (samples.inputs.rows[:, 0] == samples.inputs.rows[:, 2]).all()
    expected = Image.fromarray(plain[9, 0]).resize((5, 5), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(samples.inputs.rows[9, 1], np.asarray(expected))
    np.testing.assert_array_equal(load("digits", side=8).inputs.rows, plain)
    np.testing.assert_array_equal(load("digits", colour="grey").inputs.rows, plain)


def test_grey_is_the_luma_of_itu_r_601(tmp_path: Path) -> None:
    write_images(tmp_path, {"a": 30, "b": 1})
    grey = load("image_folder", root=tmp_path, colour="grey")
    assert grey.shape == (1, 5, 6)
    for i in range(30):
        with Image.open(tmp_path / "a" / f"{i:03d}.png") as image:
            np.testing.assert_array_equal(grey.inputs.rows[i, 0], np.asarray(image.convert("L")))


@pytest.mark.parametrize(
    ("standardise", "axes"), [("channel", (0, 2, 3)), ("pixel", (0,)), ("set", None)]
)
def test_inputs_are_standardised_over_axes(standardise: str, axes: tuple[int, ...] | None) -> None:
    samples = load("digits", standardise=standardise)
    raw = samples.inputs.rows.astype(np.float64)
    inputs = samples.select_inputs(samples.pool).astype(np.float64)
    mean, deviation = raw.mean(axis=axes, keepdims=True), raw.std(axis=axes, keepdims=True)
    deviation[deviation == 0] = 1
    np.testing.assert_allclose(inputs, (raw - mean) / deviation, rtol=1e-3, atol=1e-4)
    assert abs(inputs.mean()) < 1e-4


def test_standardise_none_divides_bytes_by_255() -> None:
    samples = load("digits", standardise="none")
    inputs = samples.select_inputs(samples.pool)
    np.testing.assert_allclose(inputs, samples.inputs.rows / 255, rtol=1e-6)
