"""Read CSV files with pandas, and normalise the columns of CSV and Parquet tables."""

from __future__ import annotations

import csv
import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np

from flexhpc.data.raw_files import open_decompressed
from flexhpc.errors import PointError

if TYPE_CHECKING:
    import pandas as pd

_MAX_ROW_BYTES = 2**22
MISSING = ["?"]
"""Markers of missing values, in addition to the markers of pandas (an empty cell, NA, NaN, ...)."""


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
        check_columns(path, len(cells), max_columns)
        has_header = header == "first row" or (header == "detect" and _is_header(cells))
        return parse_csv(file, header=0 if has_header else None, **options)


def parse_csv(file: BinaryIO | io.StringIO, **options: Any) -> pd.DataFrame:
    """Parse a CSV file with ``pandas.read_csv``; raise if a row has more cells than the header."""
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        frame: pd.DataFrame = pd.read_csv(
            file, skipinitialspace=True, na_values=MISSING, low_memory=False, index_col=False,
            compression=None, **options,
        )  # fmt: skip
    return frame


def check_columns(path: Path, column_count: int, max_columns: int) -> None:
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
        return first not in ("", *MISSING)
    return False


def inferred_type(series: pd.Series[Any]) -> str:
    """Return the type name, such as ``string``, that pandas infers from non-missing values."""
    import pandas as pd

    return pd.api.types.infer_dtype(series, skipna=True)


def normalise_column(series: pd.Series[Any]) -> pd.Series[Any]:
    """Return a column with values that do not depend on the file format.

    Surrounding blanks are removed from text; text that is empty or a marker of missing values
    becomes missing. Booleans become 0.0 and 1.0. A column of the pandas dtype ``category`` becomes
    an ordinary column with the same values.
    """
    import pandas as pd

    if isinstance(series.dtype, pd.CategoricalDtype):
        series = series.astype(object).infer_objects()
    kind = inferred_type(series)
    if kind == "boolean":
        truth = series.astype("boolean").to_numpy(dtype=np.float64, na_value=np.nan)
        return pd.Series(truth, index=series.index, name=series.name)
    if kind == "string":
        text = series.str.strip()
        return text.mask(text.isin(["", *MISSING]))
    return series
