"""Read Parquet files, and CSV files with a header (also as gzip, bzip2, xz, zip or tar)."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flexhpc.atomic import open_regular_file
from flexhpc.config.sections.data import Table
from flexhpc.data.dataset import Ints, Source, Split
from flexhpc.data.encode import fit_encoding
from flexhpc.data.raw_files import convert_read_errors
from flexhpc.data.table_reader import (
    check_columns,
    inferred_type,
    normalise_column,
    parse_csv,
    read_csv,
)
from flexhpc.errors import PointError

if TYPE_CHECKING:
    import pandas as pd

_MAX_CELLS = 2**30
"""Maximum number of cells of a Parquet table. As float64, they take 8 GB, three times as much
as the data set HIGGS."""
_MAX_COLUMNS = 2**15
"""Maximum number of columns. pandas takes up to 2 ms per text column, so the time is
limited to about a minute."""


def open_table(data: Table) -> Source:
    """Open a CSV or Parquet table, which becomes samples of shape (n, features) and dtype float32.

    Classes are the sorted distinct values of the target column.

    Raises:
        PointError: the file or a column does not exist, the file is unreadable or too large, or
            the values of the target cannot be used as classes.
    """
    path = Path(data.path).expanduser()
    if not path.is_file():
        raise PointError(f"data.path: file not found ({data.path})")
    with convert_read_errors(path, "a CSV or Parquet table"):
        with open_regular_file(path) as file:
            is_parquet = file.read(4) == b"PAR1"
        frame = _read_parquet(path) if is_parquet else _read_csv(path)
        frame.columns = frame.columns.map(str)
    drop, categorical = data.drop or [], data.categorical or []
    for key, names in (("target", [data.target]), ("drop", drop), ("categorical", categorical)):
        if unknown := [name for name in names if name not in frame.columns]:
            columns = ", ".join(frame.columns[:20])
            raise PointError(f"data.{key}: {path} has no column {unknown[0]}; it has {columns}")
    labels, classes = _encode_target(normalise_column(frame[data.target]), path)
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
        train=Split.from_arrays(encoding.encode(features, path), labels),
        standardised_mask=encoding.standardised_mask,
    )


def _read_parquet(path: Path) -> pd.DataFrame:
    """Read a Parquet file; raise ValueError if it has too many cells.

    Even a small file can have too many cells, because a column of equal values takes almost no
    space.
    """
    import pandas as pd
    from pyarrow.parquet import read_metadata

    metadata = read_metadata(path)
    rows, columns = metadata.num_rows, metadata.num_columns
    check_columns(path, columns, _MAX_COLUMNS)
    if rows * columns > _MAX_CELLS:
        raise ValueError(f"too many cells: {rows:,} rows x {columns:,} columns")
    return pd.read_parquet(path)


def _read_csv(path: Path) -> pd.DataFrame:
    """Read a CSV file; ignore blanks around all cells, including numbers and missing values."""
    import pandas as pd

    frame = read_csv(path, _MAX_COLUMNS)
    texts = {
        name: frame[name].str.strip() for name in frame if inferred_type(frame[name]) == "string"
    }
    padded = {name: text for name, text in texts.items() if not text.equals(frame[name])}
    if padded:
        parsed = parse_csv(io.StringIO(pd.DataFrame(padded).to_csv(index=False)))
        for name, column in zip(padded, parsed.columns, strict=True):
            frame[name] = parsed[column]
    return frame


def _encode_target(target: pd.Series[Any], path: Path) -> tuple[Ints, int]:
    """Return the labels, int64 (n,), and the number of classes."""
    if missing := int(target.isna().sum()):
        raise PointError(
            f"{path}: the target {target.name} is missing in {missing} of {len(target)} rows"
        )
    label = f"data.target: column {target.name} of {path}"
    values = target.to_numpy()
    if values.dtype.kind == "f" and np.any(values != np.round(values)):
        raise PointError(f"{label} contains fractions, which cannot be classes; use integers")
    if (kind := inferred_type(target)) in ("mixed", "mixed-integer"):
        raise PointError(f"{label} has values of type {kind}; use only numbers or only text")
    names, labels = np.unique(values, return_inverse=True)
    if len(names) < 2:
        raise PointError(f"{label} has {len(names)} classes; at least 2 are needed")
    return labels.astype(np.int64), len(names)
