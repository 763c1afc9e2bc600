"""CIFAR-10 and CIFAR-100 in the Python format (pickled batches)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from flexhpc.data.dataset import Ints, Part, Source
from flexhpc.data.places import find, obtain
from flexhpc.data.safe_pickle import unpickle
from flexhpc.errors import PointError, one_line

_BATCHES = [f"data_batch_{i}" for i in range(1, 6)]
_LAYOUT = {
    "cifar10": ("cifar-10-batches-py/", _BATCHES, ["test_batch"], "labels", 10),
    "cifar100": ("cifar-100-python/", ["train"], ["test"], "fine_labels", 100),
}
_COARSE_CLASSES = 20
CIFAR10_NAMES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
_NAMES_FILE = "meta"


def open_cifar(source: str, root: str | None) -> Source:
    """Open CIFAR-10 or CIFAR-100: uint8 (50000, 3, 32, 32), and 10,000 test images.

    Raises:
        PointError: the files are not found, unreadable, or invalid.
    """
    folder, train, test, key, classes = _LAYOUT[source]
    paths = obtain(source, root, [[folder + name, name] for name in train])
    batches = [read_batch(path) for path in paths]
    part = _part(paths, batches, key, classes)

    def test_part() -> Part | None:
        files = find(source, root, [[folder + name, name] for name in test])
        return _part(files, [read_batch(path) for path in files], key, classes) if files else None

    coarse = None
    if source == "cifar100" and batches[0].get("coarse_labels") is not None:
        supers = _labels(paths[0], batches[0], "coarse_labels", _COARSE_CLASSES)
        coarse = _coarse_map(paths[0], part.labels, supers, classes)
    names = CIFAR10_NAMES if source == "cifar10" else _names_beside(paths[0], classes)
    return Source(
        name=source, classes=classes, train=part, test=test_part, coarse=coarse, class_names=names
    )


def _names_beside(path: Path, classes: int) -> list[str] | None:
    """Return the class names from CIFAR-100's meta file; None if it cannot be read."""
    try:
        names = unpickle(path.with_name(_NAMES_FILE))["fine_label_names"]
    except Exception:  # the samples do not need it, and unpickling raises various exceptions
        return None
    known = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return names if known and len(names) == classes else None


def read_batch(path: Path) -> dict[str, Any]:
    """Read one pickled batch as a dict.

    Raises:
        PointError: the file is unreadable, not a batch, or contains anything but plain values and
            arrays.
    """
    try:
        content = unpickle(path)
    except Exception as error:
        raise PointError(f"{path}: not a CIFAR batch: {one_line(error)}") from None
    if not isinstance(content, dict) or not isinstance(content.get("data"), np.ndarray):
        raise PointError(f"{path}: not a CIFAR batch: it has no array `data`")
    data = content["data"]
    if data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072 or not len(data):
        raise PointError(f"{path}: data must be bytes (n, 3072), not {data.dtype} {data.shape}")
    return content


def _part(paths: list[Path], batches: list[dict[str, Any]], key: str, classes: int) -> Part:
    labels = [_labels(p, b, key, classes) for p, b in zip(paths, batches, strict=True)]
    images = [batch["data"].reshape(-1, 3, 32, 32) for batch in batches]
    return Part(
        labels=np.concatenate(labels),
        shape=(3, 32, 32),
        dtype=np.dtype(np.uint8),
        blocks=lambda: iter(images),
    )


def _labels(path: Path, batch: dict[str, Any], key: str, classes: int) -> Ints:
    try:
        labels = np.asarray(batch.get(key))
    except ValueError:
        raise PointError(f"{path}: {key} must list one label per image") from None
    if labels.shape != (len(batch["data"]),):
        raise PointError(f"{path}: {key} must list one label per image")
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= classes:
        raise PointError(f"{path}: {key} must be 0 to {classes - 1}")
    return labels.astype(np.int64)


def _coarse_map(path: Path, fine: Ints, coarse: Ints, classes: int) -> Ints:
    """Return the super-class of each class, int64 (classes,); -1 for a class without samples in the
    file."""
    pairs = np.unique(np.stack([fine, coarse]), axis=1)
    if len(np.unique(pairs[0])) != pairs.shape[1]:
        double = int(pairs[0][np.flatnonzero(np.diff(pairs[0]) == 0)[0]])
        raise PointError(f"{path}: class {double} has several super-classes in coarse_labels")
    mapping = np.full(classes, -1, dtype=np.int64)
    mapping[pairs[0]] = pairs[1]
    return mapping
