"""Test sets that are part of a source, and test sets held out of the training set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flexhpc.data import load_samples, load_test_set
from flexhpc.errors import PointError
from tests.data.writers import (
    RNG,
    cifar_batch,
    load,
    section,
    write_cifar10,
    write_cifar100,
    write_images,
    write_mnist,
    write_text,
)


def write_mnist_with_test_set(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Write 20 training and 10 test samples; return images and labels of all 30."""
    images = RNG.integers(0, 256, (30, 28, 28), dtype=np.uint8)
    labels = RNG.integers(0, 10, 30, dtype=np.uint8)
    write_mnist(folder, zipped=True, images=images[:20], labels=labels[:20])
    write_mnist(folder, zipped=False, images=images[20:], labels=labels[20:], split="t10k")
    return images, labels


@pytest.mark.parametrize("fraction", [0.1, 0.5])
def test_held_out_samples_are_never_in_the_pool(fraction: float) -> None:
    all_samples, samples = load("digits"), load("digits", test_fraction=fraction)
    other_seed = load("digits", 1, test_fraction=fraction, labels="random")
    test = load_test_set(section(source="digits", test_fraction=fraction), 0)
    assert len(test.labels) == round(fraction * 1_797)
    np.testing.assert_array_equal(samples.pool, other_seed.pool)
    assert set(samples.pool).isdisjoint(test.rows)
    assert len(samples.pool) + len(test.labels) == 1_797
    assert samples.n_limit == len(samples.pool)
    np.testing.assert_array_equal(samples.labels, all_samples.labels)
    np.testing.assert_array_equal(test.labels, all_samples.labels[test.rows])


def test_mean_and_deviation_exclude_held_out_samples() -> None:
    data = section(source="digits", test_fraction=0.3)
    samples, test = load_samples(data, 0), load_test_set(data, 0)
    train = samples.inputs.rows[samples.pool]
    np.testing.assert_allclose(samples.inputs.mean.item(), train.mean(), rtol=1e-6)
    np.testing.assert_allclose(samples.inputs.deviation.item(), train.std(), rtol=1e-6)
    assert samples.inputs.mean.item() != load("digits").inputs.mean.item()
    raw = samples.inputs.rows[test.rows[:50]].astype(np.float32)
    expected = (raw - samples.inputs.mean) / samples.inputs.deviation
    np.testing.assert_array_equal(test.select_inputs(np.arange(50)), expected)


def test_corruption_is_a_fraction_of_the_training_samples() -> None:
    data = section(source="digits", test_fraction=0.25, labels="corrupted", corruption=0.2)
    samples, test = load_samples(data, 0), load_test_set(data, 0)
    corrupted = np.flatnonzero(samples.labels != samples.source.train.labels)
    assert len(corrupted) == round(0.2 * len(samples.pool))
    assert set(corrupted) <= set(samples.pool)
    np.testing.assert_array_equal(test.labels, samples.source.train.labels[test.rows])


def test_test_files_are_standardised_with_the_training_moments(tmp_path: Path) -> None:
    images, labels = write_mnist_with_test_set(tmp_path)
    samples = load("mnist", root=tmp_path)
    test = load_test_set(section(source="mnist", root=tmp_path), 0)
    np.testing.assert_array_equal(test.labels, labels[20:])
    raw = images[20:, None].astype(np.float32)
    expected = (raw - samples.inputs.mean) / samples.inputs.deviation
    np.testing.assert_array_equal(test.select_inputs(np.arange(10)), expected)
    np.testing.assert_array_equal(test.select_inputs(np.array([7, 2])), expected[[7, 2]])
    held_out = load_test_set(section(source="mnist", root=tmp_path, test_fraction=0.2), 0)
    assert len(held_out.labels) == 4, "a fraction of the training samples"


def test_test_images_are_permuted_and_resized_like_training_images(tmp_path: Path) -> None:
    write_mnist_with_test_set(tmp_path)
    mnist = {"source": "mnist", "root": tmp_path}
    permuted = section(**mnist, inputs="permuted")
    plain = load_test_set(section(**mnist), 4).select_inputs(np.arange(10))
    mixed = load_test_set(permuted, 4).select_inputs(np.arange(10))
    order = np.random.default_rng(load_samples(permuted, 4).inputs.seed).permutation(784)
    np.testing.assert_array_equal(mixed.reshape(10, 784), plain.reshape(10, 784)[:, order])
    held_out = section(**mnist, inputs="permuted", test_fraction=0.5)
    samples, test = load_samples(held_out, 4), load_test_set(held_out, 4)
    inputs = test.select_inputs(np.arange(10))
    np.testing.assert_array_equal(inputs, samples.select_inputs(test.rows))
    small = load_test_set(section(**mnist, side=7, colour="rgb"), 0)
    assert small.select_inputs(np.arange(2)).shape == (2, 3, 7, 7)


def test_test_labels_are_merged_but_neither_random_nor_corrupted(tmp_path: Path) -> None:
    train = cifar_batch(400, "fine_labels", 100)
    train["fine_labels"][:100] = range(100)
    test = cifar_batch(9, "fine_labels", 100)
    coarse_labels = [fine // 5 for fine in test["fine_labels"]]
    write_cifar100(tmp_path, train, test)
    cifar100 = {"source": "cifar100", "root": tmp_path}
    coarse = section(**cifar100, merge="coarse", labels="corrupted", corruption=0.5)
    assert load_test_set(coarse, 0).labels.tolist() == coarse_labels
    merged = section(**cifar100, merge="random", classes=7)
    samples = load_samples(merged, 3)
    mapping = dict(zip(samples.source.train.labels.tolist(), samples.labels.tolist(), strict=True))
    merged_labels = [mapping[fine] for fine in test["fine_labels"]]
    assert load_test_set(merged, 3).labels.tolist() == merged_labels
    random = load_test_set(section(**cifar100, labels="random"), 0)
    assert random.labels.tolist() == test["fine_labels"]
    train["fine_labels"] = [0] * 400
    write_cifar100(tmp_path / "few", train, test | {"fine_labels": [3] * 9})
    with pytest.raises(PointError, match="super-class of class 3 is unknown"):
        load_test_set(section(source="cifar100", root=tmp_path / "few", merge="coarse"), 0)


@pytest.mark.parametrize("name", ["val", "test"])
def test_image_folder_has_validation_images(tmp_path: Path, name: str) -> None:
    write_images(tmp_path / "train", {"a": 2, "b": 3, "c": 1})
    write_images(tmp_path / name, {"c": 2, "a": 1})
    folder = section(source="image_folder", root=tmp_path)
    assert load_test_set(folder, 0).labels.tolist() == [0, 2, 2]
    write_images(tmp_path / name, {"d": 1})
    with pytest.raises(PointError, match=f"{name}/d: the training set has no class of this name"):
        load_test_set(folder, 0)


def test_sources_without_test_set_require_test_fraction(tmp_path: Path) -> None:
    images = np.zeros((4, 28, 28), np.uint8)
    write_mnist(tmp_path, zipped=False, images=images, labels=np.arange(4, dtype=np.uint8))
    write_cifar10(tmp_path, [cifar_batch(4, "labels", 10) for _ in range(5)])
    write_images(tmp_path / "folder", {"a": 2, "b": 2})
    path = write_text(tmp_path / "t.csv", "x,y\n1,2\n2,3\n")
    for keys in (
        {"source": "digits"}, {"source": "gaussian", "size": 10},
        {"source": "mnist", "root": tmp_path}, {"source": "cifar10", "root": tmp_path},
        {"source": "table", "path": path, "target": "y"},
        {"source": "image_folder", "root": tmp_path / "folder"},
    ):  # fmt: skip
        with pytest.raises(PointError, match=r"give data\.test_fraction"):
            load_test_set(section(**keys), 3)
        half = section(**keys, test_fraction=0.5)
        samples, test = load_samples(half, 3), load_test_set(half, 3)
        inputs = test.select_inputs(np.arange(len(test.labels)))
        np.testing.assert_array_equal(inputs, samples.select_inputs(test.rows))


@pytest.mark.parametrize("fraction", [1e-5, 0.9999])
def test_fraction_that_leaves_no_sample_is_rejected(fraction: float) -> None:
    with pytest.raises(PointError, match=r"data\.test_fraction: .* leaves no t.* samples"):
        load("digits", test_fraction=fraction)
