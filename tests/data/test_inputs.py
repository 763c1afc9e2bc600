"""What ``data.inputs`` does to samples, and ``side`` and ``colour`` to images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from flexhpc.config.sections.data import Digits, ImageFolder
from flexhpc.data import load_samples
from flexhpc.data.dataset import Part
from flexhpc.data.images import resize_and_crop, with_size_and_colour
from flexhpc.data.inputs import TEST, TRAIN, Inputs
from tests.data.test_tables import table
from tests.data.writers import RNG, write_images, written

ALL = np.arange(1_797)


def digits(**keys: Any) -> Digits:
    return Digits(source="digits", **keys)


def colours(root: Path, **keys: Any) -> ImageFolder:
    return ImageFolder(source="image_folder", root=str(root), **keys)


def made(kind: str, rows: np.ndarray, part: int = TRAIN, seed: int = 1) -> Inputs:
    zero, one = np.float32(0), np.float32(1)
    return Inputs(
        rows=rows, mean=zero, deviation=one, centre=zero, spread=one, kind=kind,
        seed=seed, part=part,
    )  # fmt: skip


def both(root: Path, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Return 40 images of 30 pixels as they are, and as they are changed."""
    write_images(root, {"a": 20, "b": 20})
    plain, changed = (load_samples(colours(root, inputs=k), 5) for k in ("original", kind))
    seen = (samples.standardised(np.arange(40)) for samples in (plain, changed))
    first, second = (images.reshape(40, 3, 30) for images in seen)
    return first, second


def test_permuted_is_one_permutation_for_all_samples_and_channels(tmp_path: Path) -> None:
    plain, mixed = both(tmp_path, "permuted")
    origin = [[p for p in range(30) if (plain[:, :, p] == mixed[:, :, q]).all()] for q in range(30)]
    assert sorted(p for found in origin for p in found) == list(range(30)), "a permutation"
    assert [found[0] for found in origin] != list(range(30))


def test_permuted_each_is_a_permutation_of_its_own_for_each_sample(tmp_path: Path) -> None:
    orders = set()
    for before, after in zip(*both(tmp_path, "permuted_each"), strict=True):
        where = {tuple(before[:, p]): p for p in range(30)}
        order = tuple(where[tuple(after[:, p])] for p in range(30))
        assert sorted(order) == list(range(30)), "pixels move with all their channels"
        orders.add(order)
    assert len(orders) == 40


@pytest.mark.parametrize("kind", ["gaussian", "permuted", "permuted_each", "original"])
def test_a_sample_is_the_same_whatever_is_drawn_with_it(kind: str) -> None:
    samples = load_samples(digits(inputs=kind), 2)
    everything = samples.standardised(ALL)
    some = np.array([1_700, 3, 44, 3])
    np.testing.assert_array_equal(samples.standardised(some), everything[some])
    again = load_samples(digits(inputs=kind), 2).standardised(some)
    np.testing.assert_array_equal(again, everything[some])
    assert everything.dtype == np.float32
    if kind != "original":
        other = load_samples(digits(inputs=kind), 3).standardised(some)
        assert not np.array_equal(other, everything[some])


def test_gaussian_images_have_the_moments_of_the_training_set() -> None:
    samples = load_samples(digits(inputs="gaussian"), 0)
    noise = samples.standardised(ALL)
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 1) < 0.01
    assert len(np.unique(noise)) > 0.99 * noise.size
    plain = load_samples(digits(), 0).standardised(ALL)
    assert abs(np.corrcoef(noise.ravel(), plain.ravel())[0, 1]) < 0.02


def test_gaussian_tables_have_the_moments_of_each_feature(tmp_path: Path) -> None:
    rows = [f"{RNG.normal(50, 9)},0.1,{'xyz'[i % 3]},{i % 2}" for i in range(4_000)]
    path = written(tmp_path / "t.csv", "\n".join(["a,same,b,y", *rows]))
    plain, noisy = table(path), table(path, inputs="gaussian")
    seen, noise = plain.standardised(np.arange(4_000)), noisy.standardised(np.arange(4_000))
    assert set(np.unique(seen[:, 2:])) == {0, 1}, "one-hot features are left as they are"
    np.testing.assert_allclose(noise.mean(axis=0), seen.mean(axis=0), atol=0.06)
    np.testing.assert_allclose(noise.std(axis=0), seen.std(axis=0), atol=0.04)
    for values in (seen, noise):
        np.testing.assert_array_equal(values[:, 1], 0)
    np.testing.assert_array_equal(plain.deviation[1], 1)


@pytest.mark.parametrize("kind", ["gaussian", "permuted_each", "permuted"])
def test_training_and_test_samples_draw_differently_but_for_the_fixed_permutation(
    kind: str,
) -> None:
    rows = np.arange(20, dtype=np.float32).reshape(2, 10)
    train, test = (made(kind, rows, part).of(np.arange(2)) for part in (TRAIN, TEST))
    assert np.array_equal(train, test) == (kind == "permuted")


@settings(max_examples=20)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_resized_images_are_square_and_keep_their_centre(
    width: int, height: int, side: int
) -> None:
    done = resize_and_crop(Image.new("RGB", (width, height), (7, 8, 9)), side)
    assert done.size == (side, side)
    assert (np.asarray(done) == (7, 8, 9)).all()
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = 200
    assert (np.asarray(resize_and_crop(Image.fromarray(pixels), 10)) == 200).all()


def test_resizing_averages_rather_than_picks_pixels() -> None:
    board = np.indices((32, 32)).sum(axis=0) % 2 * 255
    part = Part.of(board.astype(np.uint8)[None, None], np.zeros(1))
    small = with_size_and_colour(part, 8, None).gather()
    assert small.shape == (1, 1, 8, 8)
    assert np.all(np.abs(small.astype(int) - 127) < 10)


def test_images_of_another_side_and_colour() -> None:
    plain = load_samples(digits(), 0).dataset.inputs
    samples = load_samples(digits(side=5, colour="rgb"), 0)
    assert samples.shape == (3, 5, 5)
    assert samples.dataset.inputs.dtype == np.uint8
    assert (samples.dataset.inputs[:, 0] == samples.dataset.inputs[:, 2]).all()
    expected = Image.fromarray(plain[9, 0]).resize((5, 5), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(samples.dataset.inputs[9, 1], np.asarray(expected))
    np.testing.assert_array_equal(load_samples(digits(side=8), 0).dataset.inputs, plain)
    np.testing.assert_array_equal(load_samples(digits(colour="grey"), 0).dataset.inputs, plain)


def test_grey_is_the_luma_of_itu_r_601(tmp_path: Path) -> None:
    write_images(tmp_path, {"a": 30, "b": 1})
    grey = load_samples(colours(tmp_path, colour="grey"), 0)
    assert grey.shape == (1, 5, 6)
    for i in range(30):
        with Image.open(tmp_path / "a" / f"{i:03d}.png") as image:
            np.testing.assert_array_equal(grey.dataset.inputs[i, 0], np.asarray(image.convert("L")))


@pytest.mark.parametrize("how", ["channel", "pixel", "set", "none"])
def test_inputs_are_standardised_as_asked(how: str) -> None:
    data = Digits(source="digits", standardise=how)
    samples = load_samples(data, 0)
    raw = samples.dataset.inputs.astype(np.float64)
    seen = samples.standardised(samples.pool).astype(np.float64)
    axes = {"channel": (0, 2, 3), "pixel": (0,), "set": None, "none": None}[how]
    if how == "none":
        np.testing.assert_allclose(seen, raw / 255, rtol=1e-6)
        return
    mean, deviation = raw.mean(axis=axes, keepdims=True), raw.std(axis=axes, keepdims=True)
    constant = deviation == 0
    np.testing.assert_allclose(
        seen, (raw - mean) / np.where(constant, 1, deviation), rtol=1e-3, atol=1e-4
    )
    assert abs(seen.mean()) < 1e-4
