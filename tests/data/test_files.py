"""Image sets in the format of every loader, intact and damaged."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flexhpc.data import image_sets, load_test_set
from flexhpc.data.image_sets import read_idx
from flexhpc.data.sources import open_source
from flexhpc.errors import PointError
from tests.conftest import FASHION_MNIST
from tests.data.writers import (
    RNG,
    UNPICKLED,
    Malicious,
    cifar_batch,
    encode_idx,
    load,
    one_line_error,
    section,
    write_cifar5m,
    write_cifar10,
    write_cifar100,
    write_images,
    write_mnist,
)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).transpose(2, 0, 1)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("inner", ["MNIST/raw", "raw", "."])
def test_reads_mnist_layouts(tmp_path: Path, zipped: bool, inner: str) -> None:
    images = RNG.integers(0, 256, (20, 28, 28), dtype=np.uint8)
    labels = RNG.integers(0, 10, 20, dtype=np.uint8)
    write_mnist(tmp_path / inner, zipped=zipped, images=images, labels=labels)
    samples = load("mnist", root=tmp_path)
    assert samples.shape == (1, 28, 28)
    np.testing.assert_array_equal(samples.inputs.rows[:, 0], images)
    np.testing.assert_array_equal(samples.labels, labels)


VALID_IDX = encode_idx(np.zeros((3, 4, 4), np.uint8))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "requires a buffer of at least 4 bytes"),
        (b"hello world", "its header b'hell' does not"),
        (VALID_IDX[:10], "requires a buffer"),
        (VALID_IDX[:-1], "array of size 47"),
        (VALID_IDX + b"x", "array of size 49"),
        (b"\0\0\x0d\x01" + VALID_IDX[4:], "its header b"),
        (b"\0\0\x08\x48" + bytes(4 * 72), "its header b"),
        (gzip.compress(VALID_IDX, mtime=0)[:-9], "ended before"),
        (b"\x1f\x8bxx", "ended before"),
    ],
)
def test_damaged_idx_is_rejected(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(PointError, match=f"{path}: cannot be read as an IDX file .*{expected}"):
        read_idx(path)


@pytest.mark.parametrize(
    ("shape", "labels", "expected"),
    [
        ((3, 28, 28), [1, 2], r"labels of shape \(2,\) do not match"),
        ((3, 28, 28), [1, 2, 10], "labels must be 0 to 9"),
        ((3, 0, 28), [1, 2, 3], r"images of shape \(3, 0, 28\) and labels"),
    ],
)
def test_mnist_of_wrong_shape_or_labels_is_rejected(
    tmp_path: Path, shape: tuple, labels: list, expected: str
) -> None:
    images = np.zeros(shape, np.uint8)
    write_mnist(tmp_path, zipped=False, images=images, labels=np.array(labels, np.uint8))
    with pytest.raises(PointError, match=expected):
        load("mnist", root=tmp_path)


@pytest.mark.skipif(not FASHION_MNIST.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_reads_fashion_mnist_of_debian() -> None:
    samples = load("fashion_mnist")
    assert len(samples.labels) == 60_000
    np.testing.assert_array_equal(np.bincount(samples.labels), [6_000] * 10)
    assert samples.conflicts == 0
    assert samples.n_limit == 60_000
    np.testing.assert_allclose(samples.inputs.mean.ravel() / 255, 0.2860, atol=1e-4)
    np.testing.assert_allclose(samples.inputs.deviation.ravel() / 255, 0.3530, atol=1e-4)


def test_reads_cifar10_with_its_test_set_and_fine_labels_of_cifar100(tmp_path: Path) -> None:
    batches = [cifar_batch(4, "labels", 10) for _ in range(6)]
    write_cifar10(tmp_path, batches[:5], batches[5])
    samples = load("cifar10", root=tmp_path)
    assert (len(samples.labels), samples.shape) == (20, (3, 32, 32))
    np.testing.assert_array_equal(samples.inputs.rows[4].ravel(), batches[1]["data"][0])
    assert samples.labels[7] == batches[1]["labels"][3]
    test = load_test_set(section(source="cifar10", root=tmp_path), 0)
    assert test.labels.tolist() == batches[5]["labels"]
    assert test.select_inputs(np.arange(4)).shape == (4, 3, 32, 32)
    fine = cifar_batch(6, "fine_labels", 100)
    write_cifar100(tmp_path, fine)
    assert load("cifar100", root=tmp_path).source.train.labels.tolist() == fine["fine_labels"]


def test_published_pickles_are_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fine = [i % 100 for i in range(200)]
    batch = cifar_batch(200, "fine_labels", 100) | {"fine_labels": fine}
    files = {
        "train": batch | {"coarse_labels": [label // 5 for label in fine]},
        "meta": {"fine_label_names": [f"thing {i}" for i in range(100)]},
    }
    (tmp_path / "cifar-100-python").mkdir()
    for name, content in files.items():
        path = tmp_path / "cifar-100-python" / name
        path.write_bytes(pickle.dumps(content, protocol=2))
        md5 = hashlib.md5(path.read_bytes()).hexdigest()
        monkeypatch.setitem(image_sets.PUBLISHED_MD5, name, md5)
    source = open_source(section(source="cifar100", root=tmp_path), 0)
    np.testing.assert_array_equal(source.train.gather().reshape(200, 3072), batch["data"])
    assert source.train.labels.tolist() == fine
    assert source.coarse.tolist() == [label // 5 for label in range(100)]
    assert source.class_names[99] == "thing 99"


@pytest.mark.parametrize("content", [Malicious(), cifar_batch(4, "labels", 10)])
def test_unpublished_pickles_are_not_loaded(tmp_path: Path, content: object) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for i in range(1, 6):
        (folder / f"data_batch_{i}").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(PointError, match=r"data_batch_1: is not the published file .*\.bin"):
        load("cifar10", root=tmp_path)
    assert not UNPICKLED.exists()


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda content: content[:-100], "cannot be read as a CIFAR batch"),
        (lambda content: b"", "labels must be 0 to 9"),
        (lambda content: b"\x0a" + content[1:], "labels must be 0 to 9"),
    ],
)
def test_damaged_cifar10_is_rejected(
    tmp_path: Path, damage: Callable[[bytes], bytes], expected: str
) -> None:
    write_cifar10(tmp_path, [cifar_batch(4, "labels", 10) for _ in range(5)])
    path = tmp_path / "cifar-10-batches-bin" / "data_batch_3.bin"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(PointError, match=f"data_batch_3.*{expected}"):
        load("cifar10", root=tmp_path)


@pytest.mark.parametrize("name", ["cifar5m_part{}.npz", "part{}.npz"])
def test_cifar5m_parts_are_read_in_numerical_order(tmp_path: Path, name: str) -> None:
    write_cifar5m(tmp_path, {9: 3, 10: 1_500, 11: 2}, name)
    images = RNG.integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    np.savez_compressed(tmp_path / name.format(12), X=images, Y=np.arange(5))
    samples = load("cifar5m", root=tmp_path)
    parts = [np.load(tmp_path / name.format(number)) for number in (9, 10, 11, 12)]
    inputs = np.concatenate([part["X"] for part in parts]).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(samples.inputs.rows, inputs)
    np.testing.assert_array_equal(samples.labels, np.concatenate([part["Y"] for part in parts]))


def savez(**arrays: object) -> Callable[[Path], None]:
    return lambda path: np.savez(path, **arrays)


CHANNELS_LAST = np.zeros((2, 32, 32, 3), np.uint8)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:5_000]), "not a zip file"),
        (lambda path: path.write_bytes(b"not a zip"), "not a zip file"),
        (savez(X=np.zeros((2, 3, 32, 32), np.uint8), Y=np.zeros(2, int)), "dtype uint8 and shape"),
        (savez(X=CHANNELS_LAST, Y=np.zeros(3, int)), r"shape \(2, .*Y has shape \(3,\)"),
        (savez(X=CHANNELS_LAST, Y=np.array([0, 10])), "Y must be whole numbers from 0 to 9"),
        (savez(images=CHANNELS_LAST, Y=np.array([0, 1])), r"no item named 'X\.npy'"),
        (savez(X=CHANNELS_LAST, Y=np.array([Malicious()], object)), "Object arrays cannot be"),
        (Path.unlink, "part 1 of CIFAR-5m is missing"),
    ],
)
def test_damaged_cifar5m_is_rejected(
    tmp_path: Path, damage: Callable[[Path], object], expected: str
) -> None:
    write_cifar5m(tmp_path, {0: 2, 1: 2, 2: 2})
    damage(tmp_path / "cifar5m_part1.npz")
    with one_line_error(expected):
        load("cifar5m", root=tmp_path)
    assert not UNPICKLED.exists()


@pytest.mark.parametrize("inner", ["train", "."])
def test_reads_image_folder(tmp_path: Path, inner: str) -> None:
    write_images(tmp_path / inner, {"b": 2, "a": 70})
    Image.open(tmp_path / inner / "b" / "001.png").save(tmp_path / inner / "b" / "002.jpg")
    samples = load("image_folder", root=tmp_path)
    assert samples.shape == (3, 5, 6)
    assert samples.labels.tolist() == [0] * 70 + [1] * 3
    for row, name in ((66, "a/066.png"), (70, "b/000.png"), (72, "b/002.jpg")):
        np.testing.assert_array_equal(samples.inputs.rows[row], pixels(tmp_path / inner / name))


def test_images_of_several_sizes_require_side(tmp_path: Path) -> None:
    write_images(tmp_path, {"a": 2})
    write_images(tmp_path, {"b": 1}, size=(7, 7))
    with pytest.raises(PointError, match=r"size differs .*\(7x7, not 6x5\); give data\.side"):
        load("image_folder", root=tmp_path)
    resized = load("image_folder", root=tmp_path, side=4)
    assert resized.shape == (3, 4, 4)
    with Image.open(tmp_path / "b" / "000.png") as image:
        image.resize((4, 4), Image.Resampling.BILINEAR).save(tmp_path / "small.png")
    np.testing.assert_array_equal(resized.inputs.rows[2], pixels(tmp_path / "small.png"))


def test_image_folder_without_classes_or_images_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(PointError, match="is not a folder"):
        load("image_folder", root=tmp_path / "nowhere")
    for classes, expected in (
        ({}, "at least two folders"),
        ({"a": 2}, "at least two folders"),
        ({"b": 0}, "no images"),
    ):
        write_images(tmp_path, classes)
        with pytest.raises(PointError, match=expected):
            load("image_folder", root=tmp_path)


def test_missing_data_error_names_folders_and_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLEXHPC_DATA", str(tmp_path / "mine"))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setattr(urllib.request, "_opener", None)  # caches the proxies
    with pytest.raises(PointError) as caught:
        load("cifar10")
    message = str(caught.value)
    assert f"{tmp_path / 'mine'}, data" in message
    assert "could not be downloaded" in message
    assert "cifar-10-python.tar.gz" in message
    assert "\n" not in message


@pytest.mark.parametrize("source", ["cifar10", "mnist", "cifar5m"])
def test_root_that_is_not_a_packed_file_is_rejected(tmp_path: Path, source: str) -> None:
    (tmp_path / "file").write_bytes(pickle.dumps(1))
    with pytest.raises(PointError, match="neither a folder nor a file written by `flexhpc"):
        load(source, root=tmp_path / "file")


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bit_grey_images_are_scaled_to_8_bits(tmp_path: Path, suffix: str) -> None:
    write_images(tmp_path, {"a": 0, "b": 1})
    wide = np.array([[0, 257, 514, 700, 65_535, 32_768]] * 5, np.uint16)
    if suffix == "pgm":
        (tmp_path / "a" / "0.pgm").write_bytes(b"P5 6 5 65535\n" + wide.astype(">u2").tobytes())
    else:
        Image.fromarray(wide).save(tmp_path / "a" / f"0.{suffix}")
    inputs = load("image_folder", root=tmp_path).inputs.rows
    np.testing.assert_array_equal(inputs[0], np.tile([0, 1, 2, 3, 255, 128], (3, 5, 1)))


@pytest.mark.parametrize("dtype", [np.int32, np.float32, None])
def test_damaged_and_32_bit_images_are_rejected(tmp_path: Path, dtype: type | None) -> None:
    write_images(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "b" / "1.tif").write_bytes(b"not an image")
    if dtype is not None:
        Image.fromarray(np.full((5, 6), 300, dtype)).save(tmp_path / "b" / "1.tif")
    problem = "cannot be read as an image" if dtype is None else "32 bits per pixel"
    with pytest.raises(PointError, match=rf"b/1\.tif: .*{problem}"):
        load("image_folder", root=tmp_path)


def test_hidden_files_and_folders_are_ignored(tmp_path: Path) -> None:
    write_images(tmp_path, {"a": 2, "b": 1, ".cache": 1, "b/.thumbnails": 1, "b/c": 1})
    (tmp_path / "a" / "._000.png").write_bytes(b"not an image")
    assert load("image_folder", root=tmp_path).source.train.labels.tolist() == [0, 0, 1, 1]


def test_images_are_sorted_by_folder(tmp_path: Path) -> None:
    write_images(tmp_path, {"a": 0, "a/x": 2, "a/x-y": 1, "b": 1})
    inputs = load("image_folder", root=tmp_path).inputs.rows
    for row, name in enumerate(("a/x/000.png", "a/x/001.png", "a/x-y/000.png", "b/000.png")):
        np.testing.assert_array_equal(inputs[row], pixels(tmp_path / name))
