"""Read Parquet files, and CSV files with pandas (also as gzip, bzip2, xz, zip or tar)."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np

from flexhpc.atomic import open_regular_file
from flexhpc.config.sections.data import Table
from flexhpc.data.dataset import Ints, Source, Split
from flexhpc.data.encode import encode, fit_encoding, standardised_mask
from flexhpc.data.raw_files import convert_read_errors, open_decompressed
from flexhpc.errors import PointError

if TYPE_CHECKING:
    import pandas as pd

_MAX_CELLS = 2**30
"""Maximum number of cells of a Parquet table. As float64, they take 8 GB, three times as much
as the data set HIGGS."""
_MAX_COLUMNS = 2**15
"""Maximum number of columns. It limits the time of reading to about a minute, because pandas takes
up to 2 ms per text column."""
_MAX_ROW_BYTES = 2**22
_MISSING = ["?"]
"""Markers of missing values, in addition to the markers of pandas (an empty cell, NA, NaN, ...)."""


def open_table(data: Table) -> Source:
    """Open a CSV or Parquet table, which becomes samples of shape (n, features) and dtype float32.

    Classes are the sorted distinct values of the target column.

    Raises:
        PointError: the file or a column does not exist, the file is unreadable or too large, or
            the values of the target cannot be used as classes.
    """
    path = Path(data.path).expanduser()
    drop, categorical = data.drop or [], data.categorical or []
    columns = {"target": [data.target], "drop": drop, "categorical": categorical}
    frame = read_table(path, columns)
    labels, classes = encode_target(normalise_column(frame[data.target]), path)
    features = frame.drop(columns=[*{data.target, *drop}])
    if not len(features.columns):
        raise PointError(
            f"{path}: has no columns except the target and the columns in data.drop; remove "
            "columns from data.drop, or use a table with more columns"
        )
    features = features.apply(normalise_column)
    encoding = fit_encoding(features, categorical, path)
    return Source(
        name=f"table {path}",
        classes=classes,
        train=Split.from_arrays(encode(encoding, features, path), labels),
        standardised_mask=standardised_mask(encoding),
    )


def read_table(
    path: Path, columns: Mapping[str, list[str]], *, as_text: bool = False
) -> pd.DataFrame:
    """Read a CSV or Parquet table.

    Args:
        path: the file.
        columns: for each key of the ``data`` section, the names of columns that must exist.
        as_text: whether to return all cells of a CSV file as text, including blanks around them.

    Raises:
        PointError: the file or a column does not exist, or the file is unreadable or too large.
    """
    if not path.is_file():
        raise PointError(f"data.path: file not found ({path})")
    with convert_read_errors(path, "a CSV or Parquet table"):
        with open_regular_file(path) as file:
            is_parquet = file.read(4) == b"PAR1"
        if is_parquet:
            frame = _read_parquet(path)
        elif as_text:
            frame = read_csv(
                path, _MAX_COLUMNS, dtype=str, keep_default_na=False, na_values=[],
                skipinitialspace=False,
            )  # fmt: skip
        else:
            frame = _read_stripped_csv(path)
        frame.columns = frame.columns.map(str).str.strip()
    for key, names in columns.items():
        if unknown := [name for name in names if name not in frame.columns]:
            existing = ", ".join(frame.columns[:20])
            raise PointError(f"data.{key}: {path} has no column {unknown[0]}; it has {existing}")
    return frame


def _read_parquet(path: Path) -> pd.DataFrame:
    """Read a Parquet file; raise ValueError if it has too many cells.

    Even a small file can have too many cells, because a column of equal values takes almost no
    space.
    """
    import pandas as pd
    from pyarrow.parquet import read_metadata

    metadata = read_metadata(path)
    rows, columns = metadata.num_rows, metadata.num_columns
    _check_columns(path, columns, _MAX_COLUMNS)
    if rows * columns > _MAX_CELLS:
        raise ValueError(f"too many cells: {rows:,} rows x {columns:,} columns")
    return pd.read_parquet(path)


def _read_stripped_csv(path: Path) -> pd.DataFrame:
    """Read a CSV file; ignore blanks around all cells, including numbers and missing values."""
    import pandas as pd

    frame = read_csv(path, _MAX_COLUMNS)
    texts = [name for name in frame if pd.api.types.infer_dtype(frame[name]) == "string"]
    stripped = {name: frame[name].str.strip() for name in texts}
    padded = {name: text for name, text in stripped.items() if not text.equals(frame[name])}
    if padded:
        parsed = _parse_csv(io.StringIO(pd.DataFrame(padded).to_csv(index=False)))
        for name, column in zip(padded, parsed.columns, strict=True):
            frame[name] = parsed[column]
    return frame


def encode_target(target: pd.Series[Any], path: Path) -> tuple[Ints, int]:
    """Return the labels, int64 (n,), and the number of classes.

    Raises:
        PointError: a value is missing, or the values cannot be used as classes.
    """
    import pandas as pd

    if missing := int(target.isna().sum()):
        raise PointError(
            f"{path}: the target {target.name} is missing in {missing} of {len(target)} rows"
        )
    label = f"data.target: column {target.name} of {path}"
    values = target.to_numpy()
    if values.dtype.kind == "f" and np.any(values != np.round(values)):
        raise PointError(f"{label} contains fractions, which cannot be classes; use integers")
    if (kind := pd.api.types.infer_dtype(target)) in ("mixed", "mixed-integer"):
        raise PointError(f"{label} has values of type {kind}; use only numbers or only text")
    names, labels = np.unique(values, return_inverse=True)
    if len(names) < 2:
        raise PointError(f"{label} has {len(names)} classes; at least 2 are needed")
    return labels.astype(np.int64), len(names)


def read_csv(
    path: Path, max_columns: int, max_bytes: int | None = None,
    header: Literal["first row", "detect"] | None = "first row", **options: Any,
) -> pd.DataFrame:  # fmt: skip
    """Read a CSV file, which can be compressed.

    Args:
        path: the file.
        max_columns: maximum number of columns; checked before the file is parsed.
        max_bytes: maximum size in bytes after decompression; None for
            :data:`flexhpc.data.raw_files.MAX_BYTES`.
        header: ``first row`` if the table has a header; None if it has no header; ``detect`` if the
            first row is the header unless its first cell is a number or missing.
        **options: further arguments of ``pandas.read_csv``.

    Raises:
        PointError: there are too many columns.
        Exception: of any type, if the file is damaged or too large.
    """
    with open_decompressed(path, max_bytes) as file:
        cells = _first_row(file, options.get("comment"))
        _check_columns(path, len(cells), max_columns)
        has_header = header == "first row" or (header == "detect" and _is_header(cells))
        return _parse_csv(file, header=0 if has_header else None, **options)


def _parse_csv(file: BinaryIO | io.StringIO, **options: Any) -> pd.DataFrame:
    """Parse a CSV file with ``pandas.read_csv``; raise if a row has more cells than the header."""
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        defaults: dict[str, Any] = {"skipinitialspace": True, "na_values": _MISSING}
        frame: pd.DataFrame = pd.read_csv(
            file, low_memory=False, index_col=False, compression=None, **(defaults | options)
        )
    return frame


def _check_columns(path: Path, column_count: int, max_columns: int) -> None:
    """Raise PointError if a table has more than ``max_columns`` columns."""
    if column_count > max_columns:
        raise PointError(
            f"{path}: has {column_count:,} columns, but the maximum is {max_columns:,}; remove "
            "columns, or save the table as .npy (data.source: arrays)"
        )


def _first_row(file: BinaryIO, comment: str | None) -> list[str]:
    """Return the cells of the first row, skipping blank lines and comments; read at most 4 MiB."""
    start = file.read(_MAX_ROW_BYTES)
    file.seek(0)
    text = start.decode("utf-8-sig", errors="replace")
    lines = io.StringIO(text, newline="")
    for row in csv.reader(lines, skipinitialspace=True):
        if row not in ([], [""]) and not (comment and row[0].startswith(comment)):
            if len(start) == _MAX_ROW_BYTES and lines.tell() == len(text):
                raise ValueError(f"first row is longer than {_MAX_ROW_BYTES:,} bytes")
            return row
    return []


def _is_header(cells: list[str]) -> bool:
    """Return whether the first cell of a row is neither a number nor missing."""
    first = cells[0].strip() if cells else ""
    try:
        float(first)
    except ValueError:
        return first not in ("", *_MISSING)
    return False


def normalise_column(series: pd.Series[Any]) -> pd.Series[Any]:
    """Return a column with values that do not depend on the file format.

    Surrounding blanks are removed from text; text that is empty or a marker of missing values
    becomes missing. Booleans become 0.0 and 1.0. A column of the pandas dtype ``category`` becomes
    an ordinary column with the same values.
    """
    import pandas as pd

    if isinstance(series.dtype, pd.CategoricalDtype):
        series = series.astype(object).infer_objects()
    kind = pd.api.types.infer_dtype(series)
    if kind == "boolean":
        truth = series.astype("boolean").to_numpy(dtype=np.float64, na_value=np.nan)
        return pd.Series(truth, index=series.index, name=series.name)
    if kind == "string":
        text = series.str.strip()
        return text.mask(text.isin(["", *_MISSING]))
    return series
