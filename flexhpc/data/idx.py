"""Read MNIST and Fashion-MNIST from IDX files, uncompressed or gzipped.

The format is described at http://yann.lecun.com/exdb/mnist/.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from flexhpc.data.dataset import Array, Source, Split
from flexhpc.data.raw_files import MAX_BYTES, convert_read_errors, open_decompressed
from flexhpc.data.standard_files import find_files, find_or_download
from flexhpc.errors import PointError

_FOLDERS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}
_CLASS_NAMES = {
    "fashion_mnist": (  # Xiao, Rasul and Vollgraf 2017, arXiv 1708.07747, table 2
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
        "Ankle boot",
    ),
}  # fmt: skip
_UNSIGNED_BYTE = 0x08


def read_idx(path: Path) -> Array:
    """Read an IDX file (uncompressed or gzipped) of unsigned bytes with one or three dimensions.

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


def open_mnist(source: str, root: str | None) -> Source:
    """Open MNIST or Fashion-MNIST: 60,000 training and 10,000 test images, uint8 (n, 1, 28, 28).

    Raises:
        PointError: a file is missing, unreadable or invalid.
    """

    def open_test_split() -> Split | None:
        paths = find_files(source, root, _candidate_paths(source, "t10k"))
        return _read_split(*paths) if paths else None

    train = _read_split(*find_or_download(source, root, _candidate_paths(source, "train")))
    return Source(
        name=source, classes=10, train=train, open_test=open_test_split,
        class_names=_CLASS_NAMES.get(source),
    )  # fmt: skip


def _candidate_paths(source: str, split: str) -> list[list[str]]:
    """Return the possible paths of the image file and the label file, relative to a root folder."""
    folders = (f"{_FOLDERS[source]}/raw/", "raw/", "")
    return [
        [f"{folder}{split}-{name}-ubyte{end}" for folder in folders for end in ("", ".gz")]
        for name in ("images-idx3", "labels-idx1")
    ]


def _read_split(image_path: Path, label_path: Path) -> Split:
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
