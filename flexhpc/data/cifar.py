"""Read CIFAR-10 and CIFAR-100 from the published pickles or from CIFAR's binary files."""

from __future__ import annotations

import hashlib
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from flexhpc.data.dataset import Array, Ints, Source, Split
from flexhpc.data.raw_files import MAX_BYTES, convert_read_errors, open_decompressed
from flexhpc.data.standard_files import find_files, find_or_download
from flexhpc.errors import PointError

_FOLDERS = {
    "cifar10": ("cifar-10-batches-py", "cifar-10-batches-bin"),
    "cifar100": ("cifar-100-python", "cifar-100-binary"),
}
_TRAIN = {"cifar10": [f"data_batch_{i}" for i in range(1, 6)], "cifar100": ["train"]}
_TEST = {"cifar10": ["test_batch"], "cifar100": ["test"]}
_CLASSES = {"cifar10": 10, "cifar100": 100}
_COARSE_CLASSES = 20
_SHAPE = (3, 32, 32)
CIFAR10_NAMES = (
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
"""MD5 sums of the published pickles; torchvision verifies the same sums."""


def open_cifar(source: str, root: str | None) -> Source:
    """Open CIFAR-10 or CIFAR-100: 50,000 training and 10,000 test images, uint8 (n, 3, 32, 32).

    Raises:
        PointError: a file is missing or damaged, or a pickle is not the published file.
    """
    classes = _CLASSES[source]
    paths = find_or_download(source, root, _candidate_paths(source, _TRAIN))
    train, coarse = _read_batches(paths, classes)

    def open_test_split() -> Split | None:
        files = find_files(source, root, _candidate_paths(source, _TEST))
        return _read_batches(files, classes)[0] if files else None

    names = CIFAR10_NAMES if source == "cifar10" else _read_class_names(paths[0].parent)
    super_classes = None if coarse is None else _coarse_map(paths[0], train.labels, coarse)
    return Source(
        name=source, classes=classes, train=train, open_test=open_test_split, coarse=super_classes,
        class_names=names,
    )  # fmt: skip


def _candidate_paths(source: str, files: dict[str, list[str]]) -> list[list[str]]:
    """Return, for each file of ``source``, its possible paths relative to a root folder."""
    pickles, binaries = _FOLDERS[source]
    return [
        [f"{pickles}/{name}", name, f"{binaries}/{name}.bin", f"{name}.bin"]
        for name in files[source]
    ]


def _read_batches(paths: list[Path], classes: int) -> tuple[Split, Ints | None]:
    """Return the samples of all files ``paths``, and their super-classes (None for CIFAR-10)."""
    batches = [(_read_binary if path.suffix else _read_pickle)(path, classes) for path in paths]
    images = [images.reshape(-1, *_SHAPE) for images, *_ in batches]
    labels = np.concatenate([fine for _, fine, _ in batches]).astype(np.int64)
    split = Split(
        labels=labels, shape=_SHAPE, dtype=np.dtype(np.uint8), blocks=partial(iter, images)
    )
    coarse = batches[0][2] if classes == 100 else None
    return split, coarse


def _read_binary(path: Path, classes: int) -> tuple[Array, Array, Array]:
    """Return the pixels, classes and super-classes of the images in a binary CIFAR file.

    An image of CIFAR-10 starts with one label byte: the class. An image of CIFAR-100 starts with
    two label bytes: the super-class and the class. For CIFAR-10, the returned super-classes have no
    meaning.
    """
    labels = 2 if classes == 100 else 1
    with convert_read_errors(path, "a CIFAR batch"), open_decompressed(path) as file:
        rows = np.frombuffer(file.read(MAX_BYTES), np.uint8).reshape(
            -1, labels + int(np.prod(_SHAPE))
        )
        coarse, fine = rows[:, 0], rows[:, labels - 1]
        if not len(rows) or fine.max() >= classes:
            raise ValueError(f"labels must be 0 to {classes - 1}")
        if classes == 100 and coarse.max() >= _COARSE_CLASSES:
            raise ValueError(f"super-classes must be 0 to {_COARSE_CLASSES - 1}")
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


def _read_class_names(folder: Path) -> list[str] | None:
    """Return the class names of CIFAR-100; None if the file of names is missing or invalid."""
    try:
        if (text := folder / "fine_label_names.txt").is_file():
            names = text.read_text().split()
        else:
            names = _load_published_pickle(folder / "meta")["fine_label_names"]
    except (OSError, ValueError, PointError):
        return None
    return names if len(names) == _CLASSES["cifar100"] else None


def _coarse_map(path: Path, fine: Ints, coarse: Array) -> Ints:
    """Return the super-class of each class, int64 (100,); -1 for a class without samples."""
    mapping = np.full(_CLASSES["cifar100"], -1, dtype=np.int64)
    mapping[fine] = coarse
    if len(wrong := fine[mapping[fine] != coarse]):
        raise PointError(f"{path}: class {wrong[0]} has several super-classes; replace the file")
    return mapping
