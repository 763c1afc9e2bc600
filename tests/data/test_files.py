"""Files in the exact format of every loader, good and damaged."""

from __future__ import annotations

import gzip
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flexhpc.data import load_samples
from flexhpc.data.cifar import load_cifar
from flexhpc.data.idx import load_mnist, read_idx
from flexhpc.data.image_folder import load_image_folder
from flexhpc.errors import PointError
from flexhpc.spec.sections import ImageSet
from tests.conftest import FASHION_MNIST, SHARED

RNG = np.random.default_rng(0)


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


def write_mnist(folder: Path, *, zipped: bool, images: np.ndarray, labels: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in (("images-idx3", images), ("labels-idx1", labels)):
        content = idx(array)
        path = folder / f"train-{name}-ubyte{'.gz' if zipped else ''}"
        path.write_bytes(gzip.compress(content) if zipped else content)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("inner", ["MNIST/raw", "raw", "."])
def test_mnist_layouts(tmp_path: Path, zipped: bool, inner: str) -> None:
    images = RNG.integers(0, 256, (20, 28, 28), dtype=np.uint8)
    labels = RNG.integers(0, 10, 20, dtype=np.uint8)
    write_mnist(tmp_path / inner, zipped=zipped, images=images, labels=labels)
    dataset = load_mnist("mnist", str(tmp_path))
    assert dataset.shape == (1, 28, 28)
    np.testing.assert_array_equal(dataset.inputs[:, 0], images)
    np.testing.assert_array_equal(dataset.labels, labels)


GOOD_IDX = idx(np.zeros((3, 4, 4), np.uint8))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "not an IDX file"),
        (b"hello world", "not an IDX file"),
        (GOOD_IDX[:10], "cut short"),
        (GOOD_IDX[:-1], "holds 47 bytes"),
        (GOOD_IDX + b"x", "holds 49 bytes"),
        (b"\0\0\x0d\x01" + GOOD_IDX[4:], "not an IDX file"),
        (gzip.compress(GOOD_IDX, mtime=0)[:-9], "cannot be read"),
        (b"\x1f\x8bxx", "cannot be read"),
    ],
)
def test_damaged_idx(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(PointError, match=expected) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


def test_mnist_with_wrong_labels(tmp_path: Path) -> None:
    images = np.zeros((3, 28, 28), np.uint8)
    write_mnist(tmp_path, zipped=False, images=images, labels=np.array([1, 2], np.uint8))
    with pytest.raises(PointError, match="do not belong together"):
        load_mnist("mnist", str(tmp_path))
    write_mnist(tmp_path, zipped=False, images=images, labels=np.array([1, 2, 10], np.uint8))
    with pytest.raises(PointError, match="labels must be 0 to 9"):
        load_mnist("mnist", str(tmp_path))


@pytest.mark.skipif(not FASHION_MNIST.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_the_real_fashion_mnist_of_debian() -> None:
    samples = load_samples(ImageSet(source="fashion_mnist"), seed=0)
    assert len(samples.dataset) == 60_000
    np.testing.assert_array_equal(np.bincount(samples.labels), [6_000] * 10)
    assert samples.conflicts == 0
    assert samples.n_limit == 60_000
    np.testing.assert_allclose(samples.mean.ravel() / 255, 0.2860, atol=1e-4)
    np.testing.assert_allclose(samples.deviation.ravel() / 255, 0.3530, atol=1e-4)


def cifar_batch(n: int, key: str, classes: int) -> dict:
    data = RNG.integers(0, 256, (n, 3072), dtype=np.uint8)
    return {"data": data, key: RNG.integers(0, classes, n).tolist(), "filenames": ["x"] * n}


def write_cifar10(folder: Path, batches: list) -> None:
    inner = folder / "cifar-10-batches-py"
    inner.mkdir(parents=True)
    for i, batch in enumerate(batches, 1):
        (inner / f"data_batch_{i}").write_bytes(pickle.dumps(batch, protocol=2))


def test_cifar10(tmp_path: Path) -> None:
    batches = [cifar_batch(4, "labels", 10) for _ in range(5)]
    write_cifar10(tmp_path, batches)
    dataset = load_cifar("cifar10", str(tmp_path))
    assert dataset.shape == (3, 32, 32)
    assert len(dataset) == 20
    np.testing.assert_array_equal(dataset.inputs[4].ravel(), batches[1]["data"][0])
    assert dataset.labels[7] == batches[1]["labels"][3]


def test_cifar100_uses_fine_labels(tmp_path: Path) -> None:
    batch = cifar_batch(6, "fine_labels", 100) | {"coarse_labels": [0] * 6}
    (tmp_path / "cifar-100-python").mkdir()
    (tmp_path / "cifar-100-python" / "train").write_bytes(pickle.dumps(batch, protocol=2))
    assert load_cifar("cifar100", str(tmp_path)).labels.tolist() == batch["fine_labels"]


class Evil:
    def __reduce__(self) -> tuple:
        return os.system, ("touch /tmp/flexhpc-evil",)


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        (Evil(), "holds posix.system"),
        ({"data": Evil(), "labels": []}, "holds posix.system"),
        ([1, 2], "no array `data`"),
        ({"labels": [1]}, "no array `data`"),
        (cifar_batch(4, "labels", 10) | {"labels": [1, 2]}, "one label per image"),
        (cifar_batch(4, "labels", 10) | {"labels": [1, 2, 3, 10]}, "labels must be 0 to 9"),
        (cifar_batch(4, "labels", 10) | {"data": np.zeros((4, 10), np.uint8)}, "must be bytes"),
        (cifar_batch(4, "labels", 10) | {"data": np.zeros((4, 3072))}, "must be bytes"),
    ],
)
def test_damaged_cifar(tmp_path: Path, batch: object, expected: str) -> None:
    write_cifar10(tmp_path, [batch, *[cifar_batch(4, "labels", 10) for _ in range(4)]])
    with pytest.raises(PointError, match=expected):
        load_cifar("cifar10", str(tmp_path))
    assert not Path("/tmp/flexhpc-evil").exists()


def test_cut_cifar(tmp_path: Path) -> None:
    write_cifar10(tmp_path, [cifar_batch(4, "labels", 10) for _ in range(5)])
    path = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(PointError, match="data_batch_3: not a CIFAR batch"):
        load_cifar("cifar10", str(tmp_path))


def write_images(folder: Path, classes: dict[str, int], size: tuple[int, int] = (6, 5)) -> None:
    for name, count in classes.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = RNG.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i:03d}.png")


@pytest.mark.parametrize("inner", ["train", "."])
def test_image_folder(tmp_path: Path, inner: str) -> None:
    write_images(tmp_path / inner, {"b": 2, "a": 3})
    dataset = load_image_folder(str(tmp_path))
    assert dataset.shape == (3, 5, 6)
    assert dataset.labels.tolist() == [0, 0, 0, 1, 1]
    with Image.open(tmp_path / inner / "b" / "000.png") as image:
        np.testing.assert_array_equal(dataset.inputs[3].transpose(1, 2, 0), np.asarray(image))


def test_image_folder_of_several_sizes(tmp_path: Path) -> None:
    write_images(tmp_path, {"a": 2})
    write_images(tmp_path / "x", {"b": 1}, size=(7, 7))
    (tmp_path / "x" / "b").rename(tmp_path / "b")
    (tmp_path / "x").rmdir()
    with pytest.raises(PointError, match=r"is 7x7, but 000\.png is 6x5"):
        load_image_folder(str(tmp_path))


def test_image_folder_with_a_damaged_image(tmp_path: Path) -> None:
    write_images(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "b" / "001.png").write_bytes(b"no image")
    with pytest.raises(PointError, match=r"b/001\.png: not a readable image"):
        load_image_folder(str(tmp_path))


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        ({}, "at least two folders"),
        ({"a": 2}, "at least two folders"),
        ({"a": 2, "b": 0}, "no images"),
    ],
)
def test_image_folder_without_enough(tmp_path: Path, classes: dict, expected: str) -> None:
    write_images(tmp_path, classes)
    with pytest.raises(PointError, match=expected):
        load_image_folder(str(tmp_path))
    with pytest.raises(PointError, match="is not a folder"):
        load_image_folder(str(tmp_path / "nowhere"))


@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared data beside the project")
def test_cifar10_as_jpegs(tmp_path: Path) -> None:
    import tarfile

    with tarfile.open(SHARED / "data" / "cifar10-jpeg.tar.xz") as archive:
        safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # from 3.11.4 on
        archive.extractall(tmp_path, **safely)
    (folder,) = [entry for entry in tmp_path.iterdir() if entry.is_dir()]
    dataset = load_image_folder(str(folder))
    assert len(dataset) == 20_000
    np.testing.assert_array_equal(np.bincount(dataset.labels), [2_000] * 10)
    np.testing.assert_allclose(
        dataset.inputs.mean(axis=(0, 2, 3)) / 255, [0.491, 0.482, 0.447], atol=0.005
    )


def test_data_that_is_nowhere_says_where_it_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLEXHPC_DATA", str(tmp_path / "mine"))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(PointError) as caught:
        load_cifar("cifar10", None)
    said = str(caught.value)
    assert f"{tmp_path / 'mine'}, data" in said
    assert "could not be downloaded" in said
    assert "cifar-10-python.tar.gz" in said
    assert "\n" not in said
