"""CIFAR-10 and CIFAR-100 in the python layout, read by an unpickler that can build arrays only."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from flexhpc.data.dataset import Dataset
from flexhpc.data.places import find
from flexhpc.errors import PointError

_BATCHES = [f"data_batch_{i}" for i in range(1, 6)]
_LAYOUT = {
    "cifar10": ("cifar-10-batches-py/", _BATCHES, "labels", 10),
    "cifar100": ("cifar-100-python/", ["train"], "fine_labels", 100),
}
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


class _ArraysOnly(pickle.Unpickler):
    """Refuses every name but the ones that pickled numpy arrays are made of."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"holds {module}.{name}, which is no array")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def read_batch(path: Path) -> dict[str, Any]:
    """Read one pickled batch as a dict.

    Raises:
        PointError: unreadable, not a batch, or it holds anything but plain values and arrays.
    """
    try:
        content = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except Exception as error:
        raise PointError(f"{path}: not a CIFAR batch: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("data"), np.ndarray):
        raise PointError(f"{path}: not a CIFAR batch: it has no array `data`")
    return content


def load_cifar(source: str, root: str | None) -> Dataset:
    """Load the training set of CIFAR-10 or CIFAR-100: uint8 (50000, 3, 32, 32)."""
    folder, names, label_key, classes = _LAYOUT[source]
    paths = find(source, root, [[folder + name, name] for name in names])
    images, labels = [], []
    for path in paths:
        batch = read_batch(path)
        data, batch_labels = batch["data"], batch.get(label_key)
        if data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
            raise PointError(f"{path}: data must be bytes (n, 3072), not {data.dtype} {data.shape}")
        if not isinstance(batch_labels, list) or len(batch_labels) != len(data):
            raise PointError(f"{path}: {label_key} must list one label per image")
        images.append(data.reshape(-1, 3, 32, 32))
        labels.append(np.asarray(batch_labels, dtype=np.int64))
    joined = np.concatenate(labels)
    if joined.min() < 0 or joined.max() >= classes:
        raise PointError(f"{paths[0].parent}: labels must be 0 to {classes - 1}")
    return Dataset(name=source, inputs=np.concatenate(images), labels=joined, classes=classes)
