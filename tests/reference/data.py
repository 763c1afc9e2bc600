"""Samples for the plain loops, read and standardised as a careful user does it."""

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
"""Beside the checkout, not part of it."""
CIFAR10 = TABLES / "cifar10-jpeg.tar.xz"

Array = NDArray[Any]
Words = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Samples:
    """A training set.

    Attributes:
        inputs: float32 images (n, channels, height, width) or vectors (n, features).
        labels: int64 (n,), from 0 to classes - 1.
        classes: how many there are.
    """

    inputs: Tensor
    labels: Tensor
    classes: int


def needed(data: Words) -> Path | None:
    """Return the file or folder that a recipe's data is read from; None for what ships with
    scikit-learn."""
    return {
        "digits": None,
        "fashion_mnist": FASHION_MNIST,
        "image_folder": CIFAR10,
        "covtype": TABLES / "covtype_15k.csv",
        "adult": TABLES / "adult.data",
        "credit": TABLES / "uci_credit_card.csv",
    }[data["source"]]


def read(data: Words) -> Samples:
    """Return the samples that the ``data`` words of a recipe speak of.

    Labels that are not the data set's own are drawn once for all of its samples.
    """
    inputs, own = _read(data["source"])
    if "class_map" in data:
        own = torch.tensor(data["class_map"])[own]
    classes = int(own.max()) + 1
    return Samples(inputs=inputs, **_labelled(data, own, classes))


def _labelled(data: Words, own: Tensor, classes: int) -> dict[str, Any]:
    rng = torch.Generator().manual_seed(1)
    kind = data.get("labels", "original")
    if kind == "random":
        classes = data.get("classes", classes)
        own = torch.randint(classes, own.shape, generator=rng)
    elif kind == "corrupted":
        wrong = torch.randperm(len(own), generator=rng)[: round(data["corruption"] * len(own))]
        shift = torch.randint(1, classes, wrong.shape, generator=rng)
        own = own.clone()
        own[wrong] = (own[wrong] + shift) % classes
    return {"labels": own, "classes": classes}


@cache
def _read(source: str) -> tuple[Tensor, Tensor]:
    inputs, labels = _READERS[source]()
    return torch.from_numpy(inputs.astype(np.float32)), torch.from_numpy(labels.astype(np.int64))


def _per_channel(images: Array) -> Array:
    """Standardise images (n, channels, height, width) over the whole training set."""
    over = (0, 2, 3)
    standard: Array = (images - images.mean(over, keepdims=True)) / images.std(over, keepdims=True)
    return standard


def _per_feature(values: Array) -> Array:
    standard: Array = (values - values.mean(0)) / values.std(0)
    return standard


def _digits() -> tuple[Array, Array]:
    bunch = load_digits()
    return _per_channel(bunch.images[:, None]), bunch.target


def _fashion_mnist() -> tuple[Array, Array]:
    images = _idx(FASHION_MNIST / "train-images-idx3-ubyte.gz")
    labels = _idx(FASHION_MNIST / "train-labels-idx1-ubyte.gz")
    return _per_channel(images[:, None].astype(np.float32)), labels


def _idx(path: Path) -> Array:
    """Read LeCun's IDX format: the fourth byte is the number of sides, each a big-endian int."""
    raw = gzip.decompress(path.read_bytes())
    sides = struct.unpack(f">{raw[3]}I", raw[4 : 4 + 4 * raw[3]])
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(sides)


def _cifar10() -> tuple[Array, Array]:
    """The training images of an archive NAME/train/CLASS/IMAGE.jpg."""
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
    """Ten quantities, and 44 columns that are 0 or 1 and stay so."""
    values = pd.read_csv(TABLES / "covtype_15k.csv").to_numpy(np.float64)
    features = np.concatenate([_per_feature(values[:, :10]), values[:, 10:-1]], axis=1)
    return features, values[:, -1] - 1


def _adult() -> tuple[Array, Array]:
    table = pd.read_csv(TABLES / "adult.data", skipinitialspace=True)
    return _table(table.iloc[:, :-1], []), table.iloc[:, -1].eq(">50K").to_numpy()


def _credit() -> tuple[Array, Array]:
    """X2 to X4 are sex, education and marriage: classes written as numbers."""
    table = pd.read_csv(TABLES / "uci_credit_card.csv").drop(columns="ID")
    return _table(table.drop(columns="Y"), ["X2", "X3", "X4"]), table["Y"].to_numpy()


def _table(table: pd.DataFrame, classes: list[str]) -> Array:
    """Standardise the numbers of a table and write its classes one-hot."""
    text = [str(name) for name in table if not pd.api.types.is_numeric_dtype(table[name])]
    classes = [*classes, *text]
    numbers = table.drop(columns=classes).to_numpy(np.float64)
    one_hot = pd.get_dummies(table[classes].astype(str), columns=classes).to_numpy(np.float64)
    return np.concatenate([_per_feature(numbers), one_hot], axis=1)


_READERS: Mapping[str, Callable[[], tuple[Array, Array]]] = {
    "digits": _digits,
    "fashion_mnist": _fashion_mnist,
    "image_folder": _cifar10,
    "covtype": _covtype,
    "adult": _adult,
    "credit": _credit,
}
