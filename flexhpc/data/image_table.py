"""Read Parquet files of encoded images, the format of data sets on the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flexhpc.atomic import open_regular_file
from flexhpc.config.sections.files import ImageTable
from flexhpc.data.dataset import Source
from flexhpc.data.images import LabelledImages, NamedImage, image_source
from flexhpc.data.raw_files import convert_read_errors
from flexhpc.errors import PointError

_ROWS_PER_BATCH = 256
_MAX_ROWS = 2**27
"""Maximum number of rows of a file. A limit is needed because a column of equal values takes almost
no space, so that even a small file can have very many rows."""


def open_image_table(data: ImageTable) -> Source:
    """Open images in Parquet files: uint8 (n, 3, height, width).

    Raises:
        PointError: a file or column does not exist, or a row has no image or no class.
    """
    path = Path(data.path).expanduser()
    if path.is_file() and (data.split or data.test_split):
        raise PointError(
            "data.split, data.test_split: have no effect because data.path is a file; remove them, "
            "or give a folder of files"
        )
    train = _labelled_images(_find_files(path, data.split), data)
    test_files = [] if data.test_split is None else _find_files(path, data.test_split)
    return image_source(
        f"image_table {path}",
        train,
        lambda: _labelled_images(test_files, data) if test_files else None,
        data.side,
    )


def _find_files(path: Path, split: str | None) -> list[Path]:
    if path.is_file():
        return [path]
    files = sorted(file for file in path.rglob("*.parquet") if file.name.startswith(split or ""))
    if not files:
        pattern = f"{split}*.parquet" if split else "*.parquet"
        raise PointError(f"data.path: {path} is neither a file nor a folder of {pattern} files")
    return files


def _labelled_images(files: list[Path], data: ImageTable) -> LabelledImages:
    def images() -> Iterator[NamedImage]:
        for file in files:
            for row, cell in enumerate(_read_column(file, data.column)):
                image = cell.get("bytes") if isinstance(cell, dict) else cell
                if not isinstance(image, bytes):
                    raise PointError(
                        f"{file}, row {row}: column {data.column} contains a value of type "
                        f"{type(image).__name__}, not the bytes of an image"
                    )
                yield f"{file}, row {row}", image

    labels = [label for file in files for label in _read_column(file, data.target)]
    name = f"data.target: column {data.target} of {files[0]}"
    return LabelledImages(name=name, labels=labels, images=images)


def _read_column(path: Path, column: str) -> Iterator[Any]:
    import pyarrow.parquet as pq

    with (
        convert_read_errors(path, "Parquet"),
        open_regular_file(path) as content,
        pq.ParquetFile(content) as file,
    ):
        if column not in file.schema_arrow.names:
            columns = ", ".join(file.schema_arrow.names)
            raise PointError(f"{path}: has no column {column}; it has {columns}")
        if (rows := file.metadata.num_rows) > _MAX_ROWS:
            raise PointError(f"{path}: has {rows:,} rows (maximum {_MAX_ROWS:,}); split the file")
        for batch in file.iter_batches(_ROWS_PER_BATCH, columns=[column]):
            yield from batch.column(0).to_pylist()
