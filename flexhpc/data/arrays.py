"""Samples from arrays, in memory or in NumPy files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from flexhpc.config.sections.files import Arrays
from flexhpc.data.classes import coded, names_of
from flexhpc.data.dataset import Array, Ints, Part, Source, in_blocks
from flexhpc.data.unpacked import check_memory, open_file
from flexhpc.errors import PointError, one_line

_INPUTS = ("x_train", "X_train", "x", "X", "inputs", "images", "data")
_TARGETS = ("y_train", "y", "labels", "target")
_TESTS = ("x_test", "X_test"), ("y_test",)


def open_arrays(data: Arrays, seed: int) -> Source:
    """Open the arrays of a .npz file, or of .npy files, which are memory-mapped.

    Raises:
        PointError: the file or an array does not exist, or the arrays are not valid samples and
            labels.
    """
    path = Path(data.path).expanduser()
    if not path.is_file():
        raise PointError(f"data.path: {data.path} is no file")
    given: list[Any] = []
    if path.suffix == ".npy":
        if data.target is None:
            raise PointError("data.target: is required beside a .npy file; give that of the labels")
        if (data.test_column is None) != (data.test_target is None):
            raise PointError("data.test_column and data.test_target go together; give both")
        names = [path.name, data.target, data.test_column, data.test_target]
        given = [_loaded(path.parent / name) for name in names if name is not None]
        return source_of(f"arrays {path}", given)
    with open_file(path) as file:  # NumPy does not close it if the archive is damaged
        archive = _loaded(path, file)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise PointError(f"{path}: is neither .npz nor .npy")
        given = [
            _member(archive, path, "column", data.column, _INPUTS),
            _member(archive, path, "target", data.target, _TARGETS),
        ]
        tested = (data.test_column, data.test_target)
        if any(tested) or all({*usual} & {*archive.files} for usual in _TESTS):
            given += [
                _member(archive, path, key, name, usual)
                for key, name, usual in zip(
                    ("test_column", "test_target"), tested, _TESTS, strict=True
                )
            ]
    return source_of(f"arrays {path}", given)


def _loaded(path: Path, file: BinaryIO | None = None) -> Any:
    if file is None:
        open_file(path).close()  # NumPy maps it by name, and would block on a named pipe
    try:
        if file is not None:
            return np.load(file, allow_pickle=False)
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except MemoryError:
        raise
    except Exception as error:  # numpy and zipfile raise various exceptions on damaged files
        raise PointError(f"{path}: cannot be read: {one_line(error)}") from None


def _member(archive: Any, path: Path, key: str, name: str | None, usual: tuple[str, ...]) -> Array:
    there = [one for one in ((name,) if name else usual) if one in archive.files]
    if not there:
        wanted = name or f"none of {', '.join(usual)}"
        raise PointError(
            f"data.{key}: {path} has {'no ' if name else ''}{wanted}; it has "
            f"{', '.join(archive.files)}"
        )
    check_memory(path, archive.zip, there[0])
    try:
        array: Array = archive[there[0]]
    except MemoryError:
        raise
    except Exception as error:  # numpy and zipfile raise various exceptions on damaged files
        raise PointError(f"{path}: {there[0]}: {one_line(error)}") from None
    return array


def source_of(name: str, given: list[Any] | tuple[Any, ...]) -> Source:
    """Return the source for arrays.

    Args:
        name: name for messages.
        given: inputs and labels, optionally followed by test inputs and test labels.

    Raises:
        PointError: the arrays are not valid samples, or the labels do not match them.
    """
    inputs, labels, *rest = given
    codes, order = coded(name, labels)
    train = _part(name, inputs, codes)
    test = None
    if rest:
        test = _part(f"{name}, to test on", rest[0], coded(name, rest[1], order)[0])
        if test.shape != train.shape:
            raise PointError(f"{name}: samples are {train.shape}, those to test on {test.shape}")
    return Source(
        name=name, classes=len(order), train=train, test=lambda: test, class_names=names_of(order)
    )


def _part(name: str, inputs: Array, labels: Ints) -> Part:
    """Return samples in flexhpc's format: uint8 images, or float32 vectors and images."""
    if len(labels) != len(inputs):
        raise PointError(f"{name}: inputs {inputs.shape} and labels {labels.shape} do not match")
    if len(labels) < 2:
        raise PointError(f"{name}: {len(labels)} samples are too few")
    if inputs.ndim not in (2, 3, 4) or 0 in inputs.shape:
        raise PointError(
            f"{name}: inputs {inputs.shape} are neither vectors (n, features) nor images "
            "(n, channels, height, width) or (n, height, width)"
        )
    if inputs.dtype.kind not in "biuf":
        raise PointError(f"{name}: inputs hold {inputs.dtype}, not numbers")
    if inputs.ndim == 3:
        inputs = inputs[:, None]
    if inputs.dtype == np.uint8:
        return Part.of(inputs, labels)
    if not isinstance(inputs, np.memmap):
        _check_finite(name, inputs)
        return Part.of(np.ascontiguousarray(inputs, dtype=np.float32), labels)

    def blocks() -> Iterator[Array]:
        for block in in_blocks(inputs):
            _check_finite(name, block)
            yield np.ascontiguousarray(block, dtype=np.float32)

    shape = tuple(int(side) for side in inputs.shape[1:])
    return Part(labels=labels, shape=shape, dtype=np.dtype(np.float32), blocks=blocks)


def _check_finite(name: str, inputs: Array) -> None:
    if inputs.dtype.kind != "f":
        return
    if np.isinf(inputs).any():
        raise PointError(f"{name}: inputs hold infinite numbers")
    if inputs.ndim > 2 and np.isnan(inputs).any():
        raise PointError(f"{name}: images hold nan")
