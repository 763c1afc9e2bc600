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
from flexhpc.data.dataset import Source
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
    splits = _select_splits(data_set, data, path)
    for split in splits:
        for key, column in (("column", data.column), ("target", data.target)):
            if column not in split.column_names:
                columns = ", ".join(split.column_names)
                raise PointError(f"data.{key}: {path} has no column {column}; it has {columns}")
        with convert_read_errors(path, _KIND):  # Arrow does not check offsets when it reads cells
            split.data.table.select([data.column, data.target]).validate(full=True)
    name, features = f"hugging_face {path}", splits[0].features
    if not isinstance(features[data.column], datasets.Image):
        arrays: list[Any] = []
        for split in splits:
            with convert_read_errors(path, _KIND):
                inputs = np.asarray(split.with_format("numpy")[data.column][:])
                arrays += [inputs, split[data.target][:]]
        return array_source(name, arrays)
    images = _labelled_images(splits[0], data, name)
    source = image_source(
        name,
        images,
        lambda: _labelled_images(splits[1], data, name) if len(splits) > 1 else None,
        data.side,
    )
    if names := getattr(features[data.target], "names", None):
        order = np.unique(images.labels).tolist()
        class_names = [str(names[i]) if 0 <= i < len(names) else str(i) for i in order]
        return replace(source, class_names=class_names)
    return source


def _select_splits(data_set: Any, data: HuggingFace, path: Path) -> list[Any]:
    """Return the training split and, if the data set has one, the test split."""
    if not hasattr(data_set, "keys"):
        return [data_set]
    for key, name in (("split", data.split), ("test_split", data.test_split)):
        if name is not None and name not in data_set:
            raise PointError(
                f"data.{key}: {path} has no split {name}; it has {', '.join(data_set)}"
            )
    default = (name for name in _TEST_SPLITS if name in data_set and name != data.split)
    test = data.test_split or next(default, None)
    return [data_set[name] for name in (data.split, test) if name]


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
