"""Parquet files with images as bytes, the format of data sets on the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from flexhpc.config.sections.files import ImageTable
from flexhpc.data.classes import coded, names_of
from flexhpc.data.dataset import Array, Part, Source, no_test
from flexhpc.data.decode import Named, image_part
from flexhpc.data.unpacked import open_file
from flexhpc.errors import PointError, one_line

_ROWS_AT_ONCE = 256
_MOST_ROWS = 2**27
"""Maximum number of samples that a record can store; a column of equal values takes almost no space
in the file, so the file size does not limit it."""


def open_image_table(data: ImageTable, seed: int) -> Source:
    """Open images in Parquet files: uint8 (n, 3, height, width).

    Raises:
        PointError: a file or column does not exist, or a row has no image or no class.
    """
    path = Path(data.path).expanduser()
    train, order = _part(_files(path, data.split), data, None, None)
    tested = _files(path, data.test_split) if data.test_split is not None else None

    def test() -> Part | None:
        return _part(tested, data, order, train.shape)[0] if tested else None

    name = f"image_table {path}"
    return Source(
        name=name, classes=len(order), train=train, test=test if tested is not None else no_test,
        class_names=names_of(order),
    )  # fmt: skip


def _files(path: Path, split: str | None) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise PointError(f"data.path: {path} is no file and no folder")
    found = sorted(p for p in path.rglob("*.parquet") if p.name.startswith(split or ""))
    if not found:
        begun = f" that begins with {split}" if split else ""
        raise PointError(f"data.path: {path} holds no .parquet file{begun}")
    return found


def _part(
    files: Sequence[Path], data: ImageTable, order: Array | None, shape: tuple[int, ...] | None
) -> tuple[Part, Array]:
    """Return the part for some files, and the sorted labels of the classes."""
    labels: list[Any] = []
    for file in files:
        for batch in _batches(file, [data.target]):
            labels += batch.column(0).to_pylist()
    where = f"data.target: {data.target} of {files[0]}"
    codes, order = coded(where, labels, order)

    def images() -> Iterator[Named]:
        row = 0
        for file in files:
            for batch in _batches(file, [data.column]):
                for cell in batch.column(0).to_pylist():
                    name = f"{file}, row {row}"
                    yield name, _bytes(cell, name, data.column)
                    row += 1

    return image_part(images, codes, data.side, shape), order


def _batches(path: Path, columns: list[str]) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_file(path) as content, pq.ParquetFile(content) as file:
            known = file.schema_arrow.names
            if lost := [name for name in columns if name not in known]:
                raise PointError(f"{path}: has no column {lost[0]}; it has {', '.join(known)}")
            if file.metadata.num_rows > _MOST_ROWS:
                raise PointError(
                    f"{path}: has {file.metadata.num_rows:,} rows, at most {_MOST_ROWS:,} are "
                    "supported; split it"
                )
            yield from file.iter_batches(_ROWS_AT_ONCE, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise PointError(f"{path}: is no readable Parquet: {one_line(error)}") from None


def _bytes(cell: Any, name: str, column: str) -> bytes:
    image = cell.get("bytes") if isinstance(cell, dict) else cell
    if image is None:
        raise PointError(f"{name}: {column} is missing")
    if not isinstance(image, bytes):
        raise PointError(
            f"{name}: {column} holds a {type(image).__name__}, not the bytes of images"
        )
    return image
