"""Read Hugging Face data sets from disk with the library ``datasets``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from flexhpc.atomic import open_regular_file
from flexhpc.config.sections.files import HuggingFace
from flexhpc.data.arrays import array_source
from flexhpc.data.dataset import Array, Source
from flexhpc.data.images import LabelledImages, NamedImage, image_source
from flexhpc.data.raw_files import convert_read_errors
from flexhpc.errors import PointError

_TEST_SPLITS = ("test", "validation")
_KIND = "a data set written by save_to_disk"


def open_hugging_face(data: HuggingFace) -> Source:
    """Open a Hugging Face data set written by ``save_to_disk``.

    Images are converted to uint8 (n, 3, height, width); other inputs are read as arrays.

    Raises:
        PointError: the package ``datasets`` is not installed; the folder, a split or a column does
            not exist; or the samples or labels are invalid.
    """
    try:
        import datasets
    except ImportError:
        raise PointError(
            "data.source: hugging_face requires the package datasets; run `pip install datasets`"
        ) from None
    path = Path(data.path).expanduser()
    with convert_read_errors(path, _KIND):
        for file in path.rglob("*"):
            if not file.is_dir():
                open_regular_file(file).close()  # the library would block on a named pipe
        data_set: Any = datasets.load_from_disk(str(path))
    train, test = _select_splits(data_set, data, path)
    for split in (train, test):
        if split is not None:
            _check_columns(split, data, path)
    name = f"hugging_face {path}"
    if not isinstance(train.features[data.column], datasets.Image):
        splits = [split for split in (train, test) if split is not None]
        return array_source(
            name, [array for split in splits for array in _read_arrays(split, data, path)]
        )
    images = _labelled_images(train, data, name)
    source = image_source(
        name,
        images,
        lambda: None if test is None else _labelled_images(test, data, name),
        data.side,
    )
    if names := getattr(train.features[data.target], "names", None):
        order = np.unique(images.labels).tolist()
        class_names = [str(names[i]) if 0 <= i < len(names) else str(i) for i in order]
        return replace(source, class_names=class_names)
    return source


def _select_splits(data_set: Any, data: HuggingFace, path: Path) -> tuple[Any, Any]:
    """Return the training split and the test split (None if the data set has none)."""
    if not hasattr(data_set, "keys"):
        return data_set, None
    for key, name in (("split", data.split), ("test_split", data.test_split)):
        if name is not None and name not in data_set:
            raise PointError(
                f"data.{key}: {path} has no split {name}; it has {', '.join(data_set)}"
            )
    default = (name for name in _TEST_SPLITS if name in data_set and name != data.split)
    test = data.test_split or next(default, None)
    return data_set[data.split], data_set[test] if test else None


def _check_columns(split: Any, data: HuggingFace, path: Path) -> None:
    """Raise PointError unless the columns exist and their Arrow offsets are valid.

    The offsets are checked here because Arrow does not check them when it reads cells.
    """
    for key, column in (("column", data.column), ("target", data.target)):
        if column not in split.column_names:
            columns = ", ".join(split.column_names)
            raise PointError(f"data.{key}: {path} has no column {column}; it has {columns}")
    with convert_read_errors(path, _KIND):
        split.data.table.select([data.column, data.target]).validate(full=True)


def _read_arrays(split: Any, data: HuggingFace, path: Path) -> tuple[Array, Any]:
    """Read the inputs and labels of a split whose inputs are not images."""
    with convert_read_errors(path, _KIND):
        inputs = np.asarray(split.with_format("numpy")[data.column][:])
        return inputs, split[data.target][:]


def _labelled_images(split: Any, data: HuggingFace, name: str) -> LabelledImages:
    import datasets

    encoded = split.cast_column(data.column, datasets.Image(decode=False))

    def images() -> Iterator[NamedImage]:
        with convert_read_errors(name, _KIND):
            for row, cell in enumerate(encoded[data.column]):
                image = cell["bytes"] if cell["bytes"] is not None else cell["path"]
                if image is None:
                    raise PointError(f"{name}, row {row}: {data.column} is missing")
                yield f"{name}, row {row}", image

    with convert_read_errors(name, _KIND):
        return LabelledImages(name=name, labels=split[data.target][:], images=images)
