"""Hugging Face data sets on disk, read with the library ``datasets``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from flexhpc.config.sections.files import HuggingFace
from flexhpc.data.arrays import source_of
from flexhpc.data.classes import coded, names_of
from flexhpc.data.dataset import Array, Part, Source
from flexhpc.data.decode import Named, image_part
from flexhpc.data.unpacked import open_file
from flexhpc.errors import PointError, one_line

_TESTS = ("test", "validation")


def open_hugging_face(data: HuggingFace, seed: int) -> Source:
    """Open a folder of ``save_to_disk``: images, uint8 (n, 3, height, width), or numeric arrays.

    Raises:
        PointError: the library is not installed; the folder, a split or a column does not exist; or
            the data set does not contain samples and classes.
    """
    try:
        import datasets
    except ImportError:
        why = "is read by Hugging Face's library: pip install datasets"
        raise PointError(f"data.source: hugging_face {why}") from None
    path = Path(data.path).expanduser()
    for file in path.rglob("*"):
        if not file.is_dir():
            open_file(file).close()  # the library would block on a named pipe
    try:
        loaded: Any = datasets.load_from_disk(str(path))
    except Exception as error:  # the library raises various exceptions on damaged folders
        raise PointError(f"data.path: {path}: {one_line(error)}") from None
    train, tested = _splits(loaded, data, path)
    for split in (train, *([tested] if tested is not None else [])):
        for key, column in (("column", data.column), ("target", data.target)):
            if column not in split.column_names:
                has = ", ".join(split.column_names)
                raise PointError(f"data.{key}: {path} has no column {column}; it has {has}")
    name = f"hugging_face {path}"
    for half in (train, tested):
        if half is not None:
            _check(half, data, name)
    if not isinstance(train.features[data.column], datasets.Image):
        halves = [half for half in (train, tested) if half is not None]
        return source_of(name, [array for half in halves for array in _arrays(half, data, name)])
    encoded = datasets.Image(decode=False)
    part, order = _images(train.cast_column(data.column, encoded), data, name, None, None)

    def test() -> Part | None:
        if tested is None:
            return None
        return _images(tested.cast_column(data.column, encoded), data, name, order, part.shape)[0]

    return Source(
        name=name, classes=len(order), train=part, test=test,
        class_names=_class_names(train.features[data.target], order),
    )  # fmt: skip


def _class_names(feature: Any, order: Array) -> list[str] | None:
    """Return the class names stored in the data set, as far as it has them."""
    called = getattr(feature, "names", None)
    if not called:
        return names_of(order)
    return [str(called[one]) if 0 <= one < len(called) else str(one) for one in order.tolist()]


def _splits(loaded: Any, data: HuggingFace, path: Path) -> tuple[Any, Any]:
    """Return the training split and the test split, which is None if there is no test set."""
    if not hasattr(loaded, "keys"):
        return loaded, None
    for key, name in (("split", data.split), ("test_split", data.test_split)):
        if name is not None and name not in loaded:
            raise PointError(f"data.{key}: {path} has no {name}; it has {', '.join(loaded)}")
    usual = (name for name in _TESTS if name in loaded and name != data.split)
    tested = data.test_split or next(usual, None)
    return loaded[data.split], loaded[tested] if tested else None


def _arrays(half: Any, data: HuggingFace, name: str) -> tuple[Array, Any]:
    with _read(name, data.column):
        inputs = np.asarray(half.with_format("numpy")[data.column][:])
    with _read(name, data.target):
        return inputs, half[data.target][:]


def _check(half: Any, data: HuggingFace, name: str) -> None:
    """Raise PointError for invalid offsets: the library memory-maps columns and would follow
    them."""
    with _read(name, "is damaged"):
        half.data.table.select([data.column, data.target]).validate(full=True)


@contextlib.contextmanager
def _read(name: str, what: str) -> Iterator[None]:
    """Convert the various exceptions of the library on damaged files to a PointError."""
    try:
        yield
    except (PointError, MemoryError):
        raise
    except Exception as error:
        raise PointError(f"{name}: {what}: {one_line(error)}") from None


def _images(
    half: Any, data: HuggingFace, name: str, order: Array | None, shape: tuple[int, ...] | None
) -> tuple[Part, Array]:
    with _read(name, data.target):
        labels = half[data.target][:]
    codes, order = coded(name, labels, order)

    def images() -> Iterator[Named]:
        with _read(name, data.column):
            for row, cell in enumerate(half[data.column]):
                image = cell["bytes"] if cell["bytes"] is not None else cell["path"]
                if image is None:
                    raise PointError(f"{name}, row {row}: {data.column} is missing")
                yield f"{name}, row {row}", image

    return image_part(images, codes, data.side, shape), order
