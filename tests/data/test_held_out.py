"""Test sets: of a source's own, and held out of the training set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flexhpc.config.sections.data import Digits, Gaussian, ImageFolder, ImageSet, Table
from flexhpc.data import load_samples, load_test
from flexhpc.errors import PointError
from tests.data.writers import (
    RNG,
    cifar_batch,
    write_cifar10,
    write_cifar100,
    write_images,
    write_mnist,
    written,
)


def digits(**keys: Any) -> Digits:
    return Digits(source="digits", **keys)


def image_set(source: str, root: Path, **keys: Any) -> ImageSet:
    return ImageSet.model_validate({"source": source, "root": str(root), **keys})


def write_both(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    images = RNG.integers(0, 256, (30, 28, 28), dtype=np.uint8)
    labels = RNG.integers(0, 10, 30, dtype=np.uint8)
    write_mnist(folder, zipped=True, images=images[:20], labels=labels[:20])
    write_mnist(folder, zipped=False, images=images[20:], labels=labels[20:], part="t10k")
    return images, labels


@pytest.mark.parametrize("fraction", [0.1, 0.5])
def test_held_out_samples_are_never_in_the_pool(fraction: float) -> None:
    whole, first, second = (
        load_samples(data, seed)
        for data, seed in (
            (digits(), 0),
            (digits(test_fraction=fraction), 0),
            (digits(test_fraction=fraction, labels="random"), 1),
        )
    )
    test = load_test(digits(test_fraction=fraction), 0)
    assert len(test) == len(test.labels) == round(fraction * 1_797)
    np.testing.assert_array_equal(first.pool, second.pool)
    assert set(first.pool).isdisjoint(test.rows)
    assert len(first.pool) + len(test) == 1_797
    assert first.n_limit == len(first.pool)
    np.testing.assert_array_equal(first.labels, whole.labels)
    np.testing.assert_array_equal(test.labels, whole.labels[test.rows])


def test_scaling_is_fitted_on_the_training_rows_alone() -> None:
    data = digits(test_fraction=0.3)
    samples, test = load_samples(data, 0), load_test(data, 0)
    train = samples.dataset.inputs[samples.pool]
    np.testing.assert_allclose(samples.mean.item(), train.mean(), rtol=1e-6)
    np.testing.assert_allclose(samples.deviation.item(), train.std(), rtol=1e-6)
    assert samples.mean.item() != load_samples(digits(), 0).mean.item()
    raw = samples.dataset.inputs[test.rows[:50]].astype(np.float32)
    np.testing.assert_array_equal(
        test.standardised(np.arange(50)), (raw - samples.mean) / samples.deviation
    )


def test_the_corrupted_fraction_is_of_the_training_samples() -> None:
    data = digits(test_fraction=0.25, labels="corrupted", corruption=0.2)
    samples, test = load_samples(data, 0), load_test(data, 0)
    wrong = np.flatnonzero(samples.labels != samples.dataset.labels)
    assert len(wrong) == round(0.2 * len(samples.pool))
    assert set(wrong) <= set(samples.pool)
    np.testing.assert_array_equal(test.labels, samples.dataset.labels[test.rows])


def test_own_test_files_are_standardised_with_the_training_moments(tmp_path: Path) -> None:
    images, labels = write_both(tmp_path)
    samples = load_samples(image_set("mnist", tmp_path), 0)
    test = load_test(image_set("mnist", tmp_path), 0)
    np.testing.assert_array_equal(test.labels, labels[20:])
    expected = (images[20:, None].astype(np.float32) - samples.mean) / samples.deviation
    np.testing.assert_array_equal(test.standardised(np.arange(10)), expected)
    np.testing.assert_array_equal(test.standardised(np.array([7, 2])), expected[[7, 2]])
    held_out = load_test(image_set("mnist", tmp_path, test_fraction=0.2), 0)
    assert len(held_out) == 4, "of the training samples"


def test_test_images_are_permuted_and_reshaped_as_those_of_training(tmp_path: Path) -> None:
    images, _ = write_both(tmp_path)
    np.testing.assert_array_equal(images[20:].shape, (10, 28, 28))
    permuted = image_set("mnist", tmp_path, inputs="permuted")
    held = image_set("mnist", tmp_path, inputs="permuted", test_fraction=0.5)
    plain = load_test(image_set("mnist", tmp_path), 4).standardised(np.arange(10))
    mixed = load_test(permuted, 4).standardised(np.arange(10))
    order = np.random.default_rng(load_samples(permuted, 4).inputs.seed).permutation(784)
    np.testing.assert_array_equal(mixed.reshape(10, 784), plain.reshape(10, 784)[:, order])
    samples, test = load_samples(held, 4), load_test(held, 4)
    np.testing.assert_array_equal(test.standardised(np.arange(10)), samples.standardised(test.rows))
    small = load_test(image_set("mnist", tmp_path, side=7, colour="rgb"), 0)
    assert small.standardised(np.arange(2)).shape == (2, 3, 7, 7)


def test_test_labels_are_merged_but_neither_random_nor_corrupted(tmp_path: Path) -> None:
    train = cifar_batch(400, "fine_labels", 100)
    train["fine_labels"][:100] = range(100)
    test = cifar_batch(9, "fine_labels", 100)
    for batch in (train, test):
        batch["coarse_labels"] = [fine // 5 for fine in batch["fine_labels"]]
    write_cifar100(tmp_path, train, test)
    coarse = {"merge": "coarse", "labels": "corrupted", "corruption": 0.5}
    loaded = load_test(image_set("cifar100", tmp_path, **coarse), 0)
    assert loaded.labels.tolist() == test["coarse_labels"]
    assert loaded.classes == 20
    groups = {"merge": "random", "classes": 7}
    samples = load_samples(image_set("cifar100", tmp_path, **groups), 3)
    mapping = dict(zip(samples.dataset.labels.tolist(), samples.labels.tolist(), strict=True))
    merged = load_test(image_set("cifar100", tmp_path, **groups), 3)
    assert merged.labels.tolist() == [mapping[fine] for fine in test["fine_labels"]]
    plain = load_test(image_set("cifar100", tmp_path, labels="random"), 0)
    assert plain.labels.tolist() == test["fine_labels"]
    train |= {"fine_labels": [0] * 400, "coarse_labels": [0] * 400}
    write_cifar100(tmp_path / "few", train, test | {"fine_labels": [3] * 9})
    with pytest.raises(PointError, match="class 3 has no super-class"):
        load_test(image_set("cifar100", tmp_path / "few", merge="coarse"), 0)


@pytest.mark.parametrize("name", ["val", "test"])
def test_the_validation_images_of_a_folder(tmp_path: Path, name: str) -> None:
    write_images(tmp_path / "train", {"a": 2, "b": 3, "c": 1})
    write_images(tmp_path / name, {"c": 2, "a": 1})
    folder = ImageFolder(source="image_folder", root=str(tmp_path))
    assert load_test(folder, 0).labels.tolist() == [0, 2, 2]
    write_images(tmp_path / name, {"d": 1})
    with pytest.raises(PointError, match=f"{name}/d: the training set has no class of this name"):
        load_test(folder, 0)


def test_without_a_test_set_the_error_says_what_to_give(tmp_path: Path) -> None:
    images = np.zeros((4, 28, 28), np.uint8)
    write_mnist(tmp_path, zipped=False, images=images, labels=np.arange(4, dtype=np.uint8))
    batches = [cifar_batch(4, "labels", 10) for _ in range(6)]
    write_cifar10(tmp_path, batches[:5])
    write_cifar10(tmp_path / "whole", batches[:5], batches[5])
    tested = load_test(image_set("cifar10", tmp_path / "whole"), 0)
    assert tested.labels.tolist() == batches[5]["labels"]
    assert tested.standardised(np.arange(4)).shape == (4, 3, 32, 32)
    write_images(tmp_path / "folder", {"a": 2, "b": 2})
    path = written(tmp_path / "t.csv", "x,y\n1,2\n2,3\n")
    for data in (
        digits(), Gaussian(source="gaussian", size=10), image_set("mnist", tmp_path),
        Table(source="table", path=str(path), target="y"), image_set("cifar10", tmp_path),
        ImageFolder(source="image_folder", root=str(tmp_path / "folder")),
    ):  # fmt: skip
        with pytest.raises(PointError, match=r"give data\.test_fraction"):
            load_test(data, 3)
        halved = data.model_copy(update={"test_fraction": 0.5})
        samples, test = load_samples(halved, 3), load_test(halved, 3)
        seen = test.standardised(np.arange(len(test)))
        np.testing.assert_array_equal(seen, samples.standardised(test.rows))


@pytest.mark.parametrize("fraction", [1e-5, 0.9999])
def test_a_fraction_that_leaves_nothing(fraction: float) -> None:
    with pytest.raises(PointError, match=r"data\.test_fraction: .* leaves no test"):
        load_samples(digits(test_fraction=fraction), 0)
