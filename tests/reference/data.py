"""Samples for the plain loops, read and standardised independently of flexhpc."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
TABLES = Path(__file__).resolve().parents[3] / "shared" / "data"
"""A folder next to the checkout."""
CIFAR10 = TABLES / "cifar10-jpeg.tar.xz"

Array = NDArray[Any]
Section = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Samples:
    """A training set.

    Attributes:
        inputs: float32 images (n, channels, height, width) or vectors (n, features).
        labels: int64 (n,), from 0 to classes - 1.
        classes: number of classes.
    """

    inputs: Tensor
    labels: Tensor
    classes: int


def missing_path(data: Section) -> Path | None:
    """Return the file or folder of a recipe's data if it does not exist."""
    path = _READERS[data["source"]][0]
    return path if path is not None and not path.exists() else None


def read(data: Section) -> Samples:
    """Return the samples of the ``data`` section of a recipe."""
    inputs, original = _read(data["source"])
    if "class_map" in data:
        original = torch.tensor(data["class_map"])[original]
    classes = int(original.max()) + 1
    return Samples(inputs=inputs, **_labelled(data, original, classes))


def _labelled(data: Section, labels: Tensor, classes: int) -> dict[str, Any]:
    """Return labels and classes after ``data.labels`` is applied to the original labels."""
    rng = torch.Generator().manual_seed(1)
    kind = data.get("labels", "original")
    if kind == "random":
        classes = data.get("classes", classes)
        labels = torch.randint(classes, labels.shape, generator=rng)
    elif kind == "corrupted":
        wrong = torch.randperm(len(labels), generator=rng)
        wrong = wrong[: round(data["corruption"] * len(labels))]
        shift = torch.randint(1, classes, wrong.shape, generator=rng)
        labels = labels.clone()
        labels[wrong] = (labels[wrong] + shift) % classes
    return {"labels": labels, "classes": classes}


@cache
def _read(source: str) -> tuple[Tensor, Tensor]:
    inputs, labels = _READERS[source][1]()
    return torch.from_numpy(inputs.astype(np.float32)), torch.from_numpy(labels.astype(np.int64))


def _per_channel(images: Array) -> Array:
    """Standardise images (n, channels, height, width) over the whole training set."""
    axes = (0, 2, 3)
    return (images - images.mean(axes, keepdims=True)) / images.std(axes, keepdims=True)


def _per_feature(values: Array) -> Array:
    return (values - values.mean(0)) / values.std(0)


def _digits() -> tuple[Array, Array]:
    bunch = load_digits()
    return _per_channel(bunch.images[:, None]), bunch.target


def _fashion_mnist() -> tuple[Array, Array]:
    images = _idx(FASHION_MNIST / "train-images-idx3-ubyte.gz")
    labels = _idx(FASHION_MNIST / "train-labels-idx1-ubyte.gz")
    return _per_channel(images[:, None].astype(np.float32)), labels


def _idx(path: Path) -> Array:
    """Read the IDX format of uint8: byte 3 is the number of axes, followed by their sizes."""
    raw = gzip.decompress(path.read_bytes())
    shape = struct.unpack(f">{raw[3]}I", raw[4 : 4 + 4 * raw[3]])
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)


def _cifar10() -> tuple[Array, Array]:
    """Read the training images of an archive NAME/train/CLASS/IMAGE.jpg."""
    images, names = [], []
    with tarfile.open(CIFAR10) as archive:
        for member in archive:
            parts = Path(member.name).parts
            if member.isfile() and parts[1] == "train":
                file = archive.extractfile(member)
                assert file is not None
                with Image.open(io.BytesIO(file.read())) as image:
                    images.append(np.asarray(image.convert("RGB")))
                names.append(parts[2])
    pixels = np.stack(images).transpose(0, 3, 1, 2).astype(np.float32)
    return _per_channel(pixels), np.unique(names, return_inverse=True)[1]


def _covtype() -> tuple[Array, Array]:
    """Read ten numeric columns and 44 binary columns, which are not standardised."""
    values = pd.read_csv(TABLES / "covtype_15k.csv").to_numpy(np.float64)
    features = np.concatenate([_per_feature(values[:, :10]), values[:, 10:-1]], axis=1)
    return features, values[:, -1] - 1


def _adult() -> tuple[Array, Array]:
    table = pd.read_csv(TABLES / "adult.data", skipinitialspace=True)
    return _table(table.iloc[:, :-1], []), table.iloc[:, -1].eq(">50K").to_numpy()


def _credit() -> tuple[Array, Array]:
    """Read the table; X2 to X4 (sex, education, marriage) are categories written as numbers."""
    table = pd.read_csv(TABLES / "uci_credit_card.csv").drop(columns="ID")
    return _table(table.drop(columns="Y"), ["X2", "X3", "X4"]), table["Y"].to_numpy()


def _table(table: pd.DataFrame, classes: list[str]) -> Array:
    """Standardise numeric columns and encode the categories one-hot."""
    text = [str(name) for name in table if not pd.api.types.is_numeric_dtype(table[name])]
    classes = [*classes, *text]
    numbers = table.drop(columns=classes).to_numpy(np.float64)
    one_hot = pd.get_dummies(table[classes].astype(str), columns=classes).to_numpy(np.float64)
    return np.concatenate([_per_feature(numbers), one_hot], axis=1)


_READERS: Mapping[str, tuple[Path | None, Callable[[], tuple[Array, Array]]]] = {
    "digits": (None, _digits),
    "fashion_mnist": (FASHION_MNIST, _fashion_mnist),
    "image_folder": (CIFAR10, _cifar10),
    "covtype": (TABLES / "covtype_15k.csv", _covtype),
    "adult": (TABLES / "adult.data", _adult),
    "credit": (TABLES / "uci_credit_card.csv", _credit),
}
"""Source -> its file or folder (None: part of scikit-learn) and its reader."""
