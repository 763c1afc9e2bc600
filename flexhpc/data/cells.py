"""Normalisation of table cells: text without surrounding blanks, booleans as 0 and 1."""

from __future__ import annotations

import contextlib
import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

_LONGEST_ROW = 2**22
MISSING = ["?"]
"""Markers of missing values, in addition to those of pandas (an empty cell, NA, NaN, ...)."""


def first_row(file: Path | io.BytesIO, comment: str | None = None) -> list[str]:
    """Return the cells of the first row of a CSV file; read at most 4 MiB of it.

    Args:
        file: the file; blank lines before the row are skipped.
        comment: prefix of comment lines, which are skipped; None for no comments.

    Raises:
        ValueError: the row is longer than 4 MiB, or has a cell of more than 131,072 characters.
    """
    with file.open("rb") if isinstance(file, Path) else contextlib.nullcontext(file) as content:
        start = content.read(_LONGEST_ROW)
    if isinstance(file, io.BytesIO):
        file.seek(0)
    text = start.decode("utf-8-sig", errors="replace")
    lines = io.StringIO(text, newline="")
    rows = (
        row
        for row in csv.reader(lines, skipinitialspace=True)
        if row not in ([], [""]) and not (comment and row[0].startswith(comment))
    )
    try:
        row = next(rows, [])
    except csv.Error as error:
        raise ValueError(f"first row: {error}") from None
    if len(start) == _LONGEST_ROW and lines.tell() == len(text):
        raise ValueError(f"first row: longer than {_LONGEST_ROW:,} bytes")
    return row


def kind_of(series: pd.Series[Any]) -> str:
    """Return the type of a column's non-missing values as inferred by pandas: ``string``, ..."""
    import pandas as pd

    return pd.api.types.infer_dtype(series, skipna=True)


def tidied(series: pd.Series[Any]) -> pd.Series[Any]:
    """Return a column with values that do not depend on the file format.

    Surrounding blanks are removed from text; text that is empty or a marker of missing values
    becomes missing. Booleans become 0.0 and 1.0. Categories of pandas become their values.
    """
    import pandas as pd

    if isinstance(series.dtype, pd.CategoricalDtype):
        series = series.astype(object).infer_objects()
    kind = kind_of(series)
    if kind == "boolean":
        truth = series.astype("boolean").to_numpy(dtype=np.float64, na_value=np.nan)
        return pd.Series(truth, index=series.index, name=series.name)
    if kind == "string":
        text = series.str.strip()
        return text.mask(text.isin(["", *MISSING]))
    return series
