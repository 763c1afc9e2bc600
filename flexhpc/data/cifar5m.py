"""CIFAR-5m (Nakkiran et al. 2021): millions of synthetic 32x32 images in npz files."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from flexhpc.data.cifar import CIFAR10_NAMES
from flexhpc.data.dataset import Array, Ints, Part, Source, no_test, rows_at_once
from flexhpc.data.places import not_found, roots
from flexhpc.data.unpacked import check_memory, open_file
from flexhpc.errors import PointError, one_line

_SHAPE = (32, 32, 3)
_NUMBER = re.compile(r"part_?(\d+)\.npz$", re.IGNORECASE)


def open_cifar5m(source: str, root: str | None) -> Source:
    """Open all parts, in the order of their numbers: uint8 (n, 3, 32, 32). There is no test set.

    Images are read in blocks, so that no part needs to fit into memory.

    Raises:
        PointError: there are no parts, a part is missing, or a part is damaged.
    """
    paths = _parts(source, root)
    labels = [_labels(path) for path in paths]
    train = Part(
        labels=np.concatenate(labels),
        shape=(3, 32, 32),
        dtype=np.dtype(np.uint8),
        blocks=partial(_images, paths, [len(part) for part in labels]),
    )
    return Source(
        name=source, classes=len(CIFAR10_NAMES), train=train, test=no_test,
        class_names=CIFAR10_NAMES,
    )  # fmt: skip


def _parts(source: str, root: str | None) -> list[Path]:
    places = roots(source, root)
    for place in [folder / inner for folder in places for inner in ("", "cifar5m")]:
        parts = {
            int(match[1]): path for path in place.glob("*") if (match := _NUMBER.search(path.name))
        }
        if not parts:
            continue
        numbers = sorted(parts)
        if numbers[-1] - numbers[0] >= len(numbers):
            gap = next(number for number in range(numbers[0], numbers[-1]) if number not in parts)
            raise PointError(f"{place}: part {gap} of CIFAR-5m is missing")
        return [parts[number] for number in numbers]
    raise not_found(source, places, "cifar5m_part0.npz")


def _labels(path: Path) -> Ints:
    try:
        with open_file(path) as file, np.load(file) as arrays:
            check_memory(path, arrays.zip, "Y")
            labels = np.asarray(arrays["Y"])
    except PointError:
        raise
    except Exception as error:  # numpy and zipfile raise various exceptions on damaged files
        raise PointError(f"{path}: cannot be read as npz with X and Y: {one_line(error)}") from None
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels):
        raise PointError(f"{path}: Y must be whole numbers (n,), not {labels.dtype} {labels.shape}")
    if labels.min() < 0 or labels.max() >= len(CIFAR10_NAMES):
        raise PointError(f"{path}: Y must be 0 to {len(CIFAR10_NAMES) - 1}")
    return labels.astype(np.int64)


def _images(paths: list[Path], counts: list[int]) -> Iterator[Array]:
    for path, count in zip(paths, counts, strict=True):
        try:
            yield from _images_of(path, count)
        except PointError:
            raise
        except Exception as error:
            raise PointError(f"{path}: X cannot be read: {one_line(error)}") from None


def _images_of(path: Path, count: int) -> Iterator[Array]:
    """Yield the images of one part in blocks, read directly from the zip archive."""
    step = rows_at_once(_SHAPE)
    size = int(np.prod(_SHAPE))
    with (
        open_file(path) as part,
        zipfile.ZipFile(part) as archive,
        archive.open("X.npy") as file,
    ):
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[np.lib.format.read_magic(file)]
        shape, fortran, dtype = read_header(file)
        if shape != (count, *_SHAPE) or dtype != np.uint8 or fortran:
            raise PointError(
                f"{path}: X must be bytes {(count, *_SHAPE)} in C order, not {dtype} {shape}"
            )
        for at in range(0, count, step):
            rows = min(step, count - at)
            content = file.read(rows * size)
            if len(content) != rows * size:
                raise EOFError("it is cut short")
            yield np.frombuffer(content, np.uint8).reshape(rows, *_SHAPE).transpose(0, 3, 1, 2)
