"""Read CIFAR-5m (Nakkiran et al. 2021): millions of synthetic 32x32 images in .npz files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile

from flexhpc.atomic import open_regular_file
from flexhpc.data.cifar import CIFAR10_NAMES
from flexhpc.data.dataset import Array, Ints, Source, Split
from flexhpc.data.raw_files import (
    check_fits_in_memory,
    convert_read_errors,
    open_array,
    read_array_blocks,
)
from flexhpc.data.standard_files import folders_to_search, not_found_error
from flexhpc.errors import PointError

_SHAPE = (32, 32, 3)
_NUMBER = re.compile(r"part_?(\d+)\.npz$", re.IGNORECASE)
_KIND = "an .npz file with images X, uint8 (n, 32, 32, 3), and classes Y (n,), each from 0 to 9"


def open_cifar5m(source: str, root: str | None) -> Source:
    """Open all part files of CIFAR-5m, in numerical order: uint8 training images (n, 3, 32, 32).

    Images are read in blocks, so a part file need not fit into memory. CIFAR-5m has no test set.

    Raises:
        PointError: no part file is found, or a part file is missing or damaged.
    """
    paths = _find_part_files(source, root)
    train = Split(
        labels=np.concatenate([_read_labels(path) for path in paths]),
        shape=(3, 32, 32),
        dtype=np.dtype(np.uint8),
        blocks=partial(_read_images, paths),
    )
    names = CIFAR10_NAMES
    return Source(name=source, classes=len(names), train=train, class_names=names)


def _find_part_files(source: str, root: str | None) -> list[Path]:
    """Return the paths of all part files of CIFAR-5m, in numerical order."""
    roots = folders_to_search(source, root)
    for folder in [path / inner for path in roots for inner in ("", "cifar5m")]:
        parts = {
            int(match[1]): path for path in folder.glob("*") if (match := _NUMBER.search(path.name))
        }
        for number in range(min(parts, default=0), max(parts, default=0)):
            if number not in parts:
                raise PointError(f"{folder}: part {number} of CIFAR-5m is missing; add it")
        if parts:
            return [parts[number] for number in sorted(parts)]
    raise not_found_error(source, roots, "cifar5m_part0.npz")


def _read_labels(path: Path) -> Ints:
    """Read the labels in a part file; check the shape and dtype of the images in the file."""
    with convert_read_errors(path, _KIND), open_regular_file(path) as file, NpzFile(file) as arrays:
        assert arrays.zip is not None
        check_fits_in_memory(path, arrays.zip, "Y")
        labels = arrays["Y"]
        _, shape, dtype = open_array(arrays.zip, "X")
        if labels.dtype.kind not in "iu" or not 0 <= labels.min() <= labels.max() < 10:
            raise ValueError(f"Y must be whole numbers from 0 to 9; its dtype is {labels.dtype}")
        if shape != (*labels.shape, *_SHAPE) or dtype != np.uint8:
            raise ValueError(f"X has dtype {dtype} and shape {shape}, Y has shape {labels.shape}")
        return np.asarray(labels, np.int64)


def _read_images(paths: list[Path]) -> Iterator[Array]:
    for path in paths:
        with convert_read_errors(path, _KIND):
            for block in read_array_blocks(path, "X"):
                yield block.transpose(0, 3, 1, 2)
