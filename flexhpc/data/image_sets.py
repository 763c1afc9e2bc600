"""Read MNIST, Fashion-MNIST, CIFAR-10, CIFAR-100 and CIFAR-5m in their published formats."""

from __future__ import annotations

import hashlib
import pickle
import re
import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile

from flexhpc.atomic import open_regular_file
from flexhpc.config.sections.data import ImageSet
from flexhpc.data.dataset import Array, Ints, Source, Split
from flexhpc.data.packed import reject_unpacked_file
from flexhpc.data.raw_files import (
    MAX_BYTES,
    check_fits_in_memory,
    convert_read_errors,
    open_array,
    open_decompressed,
    read_array_blocks,
)
from flexhpc.data.standard_files import (
    TORCHVISION_NAMES,
    find_files,
    find_or_download,
    folders_to_search,
    not_found_error,
)
from flexhpc.errors import PointError

_FASHION_MNIST_NAMES = (  # Xiao, Rasul and Vollgraf 2017, arXiv 1708.07747, table 2
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
    "Ankle boot",
)  # fmt: skip
_UNSIGNED_BYTE = 0x08
_CIFAR_FOLDERS = {
    "cifar10": ("cifar-10-batches-py", "cifar-10-batches-bin"),
    "cifar100": ("cifar-100-python", "cifar-100-binary"),
}
_CIFAR_TRAIN = {"cifar10": [f"data_batch_{i}" for i in range(1, 6)], "cifar100": ["train"]}
_CIFAR_TEST = {"cifar10": ["test_batch"], "cifar100": ["test"]}
_CIFAR_SHAPE = (3, 32, 32)
_CIFAR10_NAMES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
PUBLISHED_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "meta": "7973b15100ade9c7d40fb424638fde48",
}
"""MD5 sums of the published pickles of CIFAR; torchvision verifies the same sums."""
_CIFAR5M_PART = re.compile(r"part_?(\d+)\.npz$", re.IGNORECASE)
_CIFAR5M = "an .npz file with images X, uint8 (n, 32, 32, 3), and classes Y (n,), each from 0 to 9"


def open_image_set(data: ImageSet) -> Source:
    """Open MNIST, Fashion-MNIST, CIFAR-10, CIFAR-100 or CIFAR-5m.

    Raises:
        PointError: a file is missing or damaged, or a pickle is not the published file.
    """
    reject_unpacked_file(data.root)
    if data.source == "cifar5m":
        return open_cifar5m(data.root)
    if data.source in _CIFAR_FOLDERS:
        return _open_cifar(data.source, data.root)
    return _open_mnist(data.source, data.root)


def find_training_files(source: str, root: str | None) -> list[Path]:
    """Return the paths of the training files of an image set; download missing files.

    Raises:
        PointError: the files are not found; the message says how to get them.
    """
    if source == "cifar5m":
        return _find_part_files(root)
    if source in _CIFAR_FOLDERS:
        return find_or_download(source, root, _cifar_candidates(source, _CIFAR_TRAIN[source]))
    return find_or_download(source, root, _mnist_candidates(source, "train"))


def _open_mnist(source: str, root: str | None) -> Source:
    """Open MNIST or Fashion-MNIST: 60,000 training and 10,000 test images, uint8 (n, 1, 28, 28)."""

    def open_test_split() -> Split | None:
        paths = find_files(source, root, _mnist_candidates(source, "t10k"))
        return _read_mnist(*paths) if paths else None

    train = _read_mnist(*find_training_files(source, root))
    return Source(
        name=source, classes=10, train=train, open_test=open_test_split,
        class_names=_FASHION_MNIST_NAMES if source == "fashion_mnist" else None,
    )  # fmt: skip


def _mnist_candidates(source: str, split: str) -> list[list[str]]:
    """Return the possible paths of the image file and the label file, relative to a root folder."""
    folders = (f"{TORCHVISION_NAMES[source]}/raw/", "raw/", "")
    return [
        [f"{folder}{split}-{name}-ubyte{end}" for folder in folders for end in ("", ".gz")]
        for name in ("images-idx3", "labels-idx1")
    ]


def _read_mnist(image_path: Path, label_path: Path) -> Split:
    images, labels = read_idx(image_path), read_idx(label_path)
    if images.ndim != 3 or not images.size or labels.shape != images.shape[:1]:
        raise PointError(
            f"{image_path}: images of shape {images.shape} and labels of shape {labels.shape} do "
            "not match; replace both files"
        )
    if labels.max() > 9:
        raise PointError(
            f"{label_path}: labels must be 0 to 9, not {labels.max()}; replace the file"
        )
    return Split.from_arrays(images[:, None], labels)


def read_idx(path: Path) -> Array:
    """Read an IDX file (uncompressed or gzipped) of unsigned bytes with one or three dimensions.

    The format is described at http://yann.lecun.com/exdb/mnist/.

    Raises:
        PointError: the file is unreadable, truncated or not an IDX file.
    """
    with convert_read_errors(path, "an IDX file"), open_decompressed(path) as file:
        content = file.read(MAX_BYTES)
        zeros, kind, dimensions = struct.unpack_from(">HBB", content)
        if (zeros, kind) != (0, _UNSIGNED_BYTE) or dimensions not in (1, 3):
            raise ValueError(
                f"its header {content[:4]!r} does not declare unsigned bytes in 1 or 3 dimensions"
            )
        shape = struct.unpack_from(f">{dimensions}I", content, 4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def _open_cifar(source: str, root: str | None) -> Source:
    """Open CIFAR-10 or CIFAR-100: 50,000 training and 10,000 test images, uint8 (n, 3, 32, 32)."""
    classes = 100 if source == "cifar100" else 10
    paths = find_training_files(source, root)
    train, coarse = _read_cifar(paths, classes)

    def open_test_split() -> Split | None:
        files = find_files(source, root, _cifar_candidates(source, _CIFAR_TEST[source]))
        return _read_cifar(files, classes)[0] if files else None

    names = _CIFAR10_NAMES if coarse is None else _read_cifar100_names(paths[0].parent)
    super_classes = None if coarse is None else _coarse_map(paths[0], train.labels, coarse)
    return Source(
        name=source, classes=classes, train=train, open_test=open_test_split, coarse=super_classes,
        class_names=names,
    )  # fmt: skip


def _cifar_candidates(source: str, names: list[str]) -> list[list[str]]:
    """Return, for each file, its possible paths relative to a root folder."""
    pickles, binaries = _CIFAR_FOLDERS[source]
    return [[f"{pickles}/{name}", name, f"{binaries}/{name}.bin", f"{name}.bin"] for name in names]


def _read_cifar(paths: list[Path], classes: int) -> tuple[Split, Ints | None]:
    """Return the samples of all files ``paths``, and their super-classes (None for CIFAR-10)."""
    batches = [(_read_binary if path.suffix else _read_pickle)(path, classes) for path in paths]
    images = np.concatenate([images for images, _, _ in batches])
    labels = np.concatenate([fine for _, fine, _ in batches])
    coarse = batches[0][2] if classes == 100 else None
    return Split.from_arrays(images.reshape(-1, *_CIFAR_SHAPE), labels), coarse


def _read_binary(path: Path, classes: int) -> tuple[Array, Array, Array]:
    """Return the pixels, classes and super-classes of the images in a binary CIFAR file.

    An image of CIFAR-10 starts with one label byte: the class. An image of CIFAR-100 starts with
    two label bytes: the super-class and the class. For CIFAR-10, the returned super-classes have no
    meaning.
    """
    labels = 2 if classes == 100 else 1
    with convert_read_errors(path, "a CIFAR batch"), open_decompressed(path) as file:
        rows = np.frombuffer(file.read(MAX_BYTES), np.uint8).reshape(
            -1, labels + int(np.prod(_CIFAR_SHAPE))
        )
        coarse, fine = rows[:, 0], rows[:, labels - 1]
        if not len(rows) or fine.max() >= classes:
            raise ValueError(f"labels must be 0 to {classes - 1}")
        if classes == 100 and coarse.max() >= 20:
            raise ValueError("super-classes must be 0 to 19")
        return rows[:, labels:], fine, coarse


def _read_pickle(path: Path, classes: int) -> tuple[Array, Array, Array]:
    """Return the pixels, classes and super-classes of the images in a published CIFAR pickle.

    CIFAR-10 has no super-classes; the array returned for them then contains only None.
    """
    batch = _load_published_pickle(path)
    fine = batch["fine_labels" if classes == 100 else "labels"]
    return batch["data"], np.array(fine), np.array(batch.get("coarse_labels"))


def _load_published_pickle(path: Path) -> Any:
    """Load a published CIFAR pickle; reject other files, because loading them could run code."""
    with convert_read_errors(path, "a CIFAR batch"), open_decompressed(path) as file:
        content = file.read(MAX_BYTES)
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != PUBLISHED_MD5[path.name]:
        raise PointError(
            f"{path}: is not the published file (MD5 mismatch); download it again, or use the "
            "files in CIFAR's binary format (.bin)"
        )
    return pickle.loads(content, encoding="latin1")


def _read_cifar100_names(folder: Path) -> list[str] | None:
    """Return the class names of CIFAR-100; None if the file of names is missing or invalid."""
    try:
        if (text := folder / "fine_label_names.txt").is_file():
            names = text.read_text().split()
        else:
            names = _load_published_pickle(folder / "meta")["fine_label_names"]
    except (OSError, ValueError, PointError):
        return None
    return names if len(names) == 100 else None


def _coarse_map(path: Path, fine: Ints, coarse: Array) -> Ints:
    """Return the super-class of each class, int64 (100,); -1 for a class without samples."""
    mapping = np.full(100, -1, dtype=np.int64)
    mapping[fine] = coarse
    if len(wrong := fine[mapping[fine] != coarse]):
        raise PointError(f"{path}: class {wrong[0]} has several super-classes; replace the file")
    return mapping


def open_cifar5m(root: str | None) -> Source:
    """Open all part files of CIFAR-5m, in numerical order: uint8 training images (n, 3, 32, 32).

    CIFAR-5m (Nakkiran et al. 2021) consists of millions of synthetic images. They are read in
    blocks, so a part file need not fit into memory. CIFAR-5m has no test set.

    Raises:
        PointError: no part file is found, or a part file is missing or damaged.
    """
    paths = find_training_files("cifar5m", root)
    train = Split(
        labels=np.concatenate([_read_part_labels(path) for path in paths]),
        shape=_CIFAR_SHAPE,
        dtype=np.dtype(np.uint8),
        blocks=partial(_read_part_images, paths),
    )
    return Source(name="cifar5m", classes=10, train=train, class_names=_CIFAR10_NAMES)


def _find_part_files(root: str | None) -> list[Path]:
    """Return the paths of all part files of CIFAR-5m, in numerical order."""
    roots = folders_to_search("cifar5m", root)
    for folder in [path / inner for path in roots for inner in ("", "cifar5m")]:
        parts = {
            int(match[1]): path
            for path in folder.glob("*")
            if (match := _CIFAR5M_PART.search(path.name))
        }
        for number in range(min(parts, default=0), max(parts, default=0)):
            if number not in parts:
                raise PointError(f"{folder}: part {number} of CIFAR-5m is missing; add it")
        if parts:
            return [parts[number] for number in sorted(parts)]
    raise not_found_error("cifar5m", roots, "cifar5m_part0.npz")


def _read_part_labels(path: Path) -> Ints:
    """Read the labels in a part file; check the shape and dtype of the images in the file."""
    with (
        convert_read_errors(path, _CIFAR5M),
        open_regular_file(path) as file,
        NpzFile(file) as arrays,
    ):
        assert arrays.zip is not None
        check_fits_in_memory(path, arrays.zip, "Y")
        labels = arrays["Y"]
        _, shape, dtype = open_array(arrays.zip, "X")
        if labels.dtype.kind not in "iu" or not 0 <= labels.min() <= labels.max() < 10:
            raise ValueError(f"Y must be whole numbers from 0 to 9; its dtype is {labels.dtype}")
        if shape != (*labels.shape, 32, 32, 3) or dtype != np.uint8:
            raise ValueError(f"X has dtype {dtype} and shape {shape}, Y has shape {labels.shape}")
        return np.asarray(labels, np.int64)


def _read_part_images(paths: list[Path]) -> Iterator[Array]:
    for path in paths:
        with convert_read_errors(path, _CIFAR5M):
            for block in read_array_blocks(path, "X"):
                yield block.transpose(0, 3, 1, 2)
