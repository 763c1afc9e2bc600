"""The IDX format of MNIST and similar sets (http://yann.lecun.com/exdb/mnist/), gzipped or not."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np

from flexhpc.data.dataset import Array, Part, Source
from flexhpc.data.places import find, obtain
from flexhpc.data.unpacked import read_unpacked
from flexhpc.errors import PointError

_FOLDERS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}
_CLASS_NAMES = {
    "fashion_mnist": (  # Xiao, Rasul and Vollgraf 2017, arXiv 1708.07747, table 2
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
        "Ankle boot",
    ),
}  # fmt: skip
_UNSIGNED_BYTE = 0x08
_MOST_DIMENSIONS = 3


def read_idx(path: Path) -> Array:
    """Read one IDX file of unsigned bytes, gzipped or not.

    Raises:
        PointError: the file is unreadable, truncated or not IDX.
    """
    try:
        content = read_unpacked(path)
    except (OSError, ValueError) as error:
        raise PointError(f"{path}: cannot be read: {error}") from None
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _UNSIGNED_BYTE:
        raise PointError(f"{path}: not an IDX file of bytes (its first bytes are {content[:4]!r})")
    if not 1 <= content[3] <= _MOST_DIMENSIONS:
        raise PointError(f"{path}: has {content[3]} dimensions; images have 3 and labels 1")
    header = 4 + 4 * content[3]
    if len(content) < header:
        raise PointError(f"{path}: cut short: {len(content)} bytes do not hold its header")
    shape = struct.unpack(f">{content[3]}I", content[4:header])
    size = math.prod(shape)
    if len(content) != header + size:
        raise PointError(
            f"{path}: holds {len(content) - header} bytes, but its header {shape} says {size}"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def open_mnist(source: str, root: str | None) -> Source:
    """Open MNIST or Fashion-MNIST: uint8 (60000, 1, 28, 28), and 10,000 test images.

    Raises:
        PointError: the files are not found, unreadable, or invalid.
    """

    def test() -> Part | None:
        paths = find(source, root, _wanted(source, "t10k"))
        return _part(*paths) if paths else None

    train = _part(*obtain(source, root, _wanted(source, "train")))
    return Source(
        name=source, classes=10, train=train, test=test, class_names=_CLASS_NAMES.get(source)
    )


def _wanted(source: str, part: str) -> list[list[str]]:
    folders = (f"{_FOLDERS[source]}/raw/", "raw/", "")
    return [
        [f"{folder}{part}-{name}-ubyte{end}" for folder in folders for end in ("", ".gz")]
        for name in ("images-idx3", "labels-idx1")
    ]


def _part(image_path: Path, label_path: Path) -> Part:
    images, labels = read_idx(image_path), read_idx(label_path)
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise PointError(
            f"{image_path}: images {images.shape} and labels {labels.shape} do not belong together"
        )
    if 0 in images.shape[1:]:
        raise PointError(f"{image_path}: its images {images.shape[1:]} have no pixels")
    if len(labels) == 0 or labels.max() > 9:
        raise PointError(f"{label_path}: labels must be 0 to 9")
    return Part.of(images[:, None], labels)
