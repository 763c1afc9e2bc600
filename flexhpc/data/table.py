"""Tables with a header: CSV, also compressed with gzip, bzip2, xz, zip or tar, or Parquet."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flexhpc.config.sections.data import Table
from flexhpc.data.cells import MISSING, first_row, kind_of, tidied
from flexhpc.data.dataset import Ints, Part, Source, no_test
from flexhpc.data.encode import fit_encoding
from flexhpc.data.unpacked import open_file, plain_text
from flexhpc.errors import PointError, one_line

if TYPE_CHECKING:
    import pandas as pd

_MOST_CELLS = 2**30
"""Maximum number of cells of a Parquet table: 8 GB of numbers, three times HIGGS."""
_MOST_COLUMNS = 2**15
"""Maximum number of columns: pandas takes up to 2 ms per column, a minute for this many text
columns."""


def open_table(data: Table) -> Source:
    """Open the table of a point: float32 (n, features).

    Classes are the sorted values of the target.

    Raises:
        PointError: the file or a column does not exist, the file is unreadable, or the target does
            not contain classes.
    """
    path = Path(data.path).expanduser()
    if not path.is_file():
        raise PointError(f"data.path: {data.path} is no file")
    frame = _read(path)
    drop, categorical = data.drop or [], data.categorical or []
    for key, names in (("target", [data.target]), ("drop", drop), ("categorical", categorical)):
        if lost := [name for name in names if name not in frame.columns]:
            has = ", ".join(map(str, frame.columns[:20]))
            raise PointError(f"data.{key}: {path} has no column {lost[0]}; it has {has}")
    labels, classes = _classes(tidied(frame[data.target]), path)
    features = frame.drop(columns=[data.target, *(name for name in drop if name != data.target)])
    if not len(features.columns):
        raise PointError(f"{path}: has no column but the target")
    features = features.apply(tidied)
    encoding = fit_encoding(features, categorical, str(path))
    return Source(
        name=f"table {path}",
        classes=classes,
        train=Part.of(encoding.encode(features, str(path)), labels),
        test=no_test,
        scaled=encoding.scaled,
    )


def _read(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        with open_file(path) as file:
            is_parquet = file.read(4) == b"PAR1"
        if is_parquet:
            _check_size(path)
        frame = pd.read_parquet(path) if is_parquet else _read_csv(path)
    except PointError:
        raise
    except Exception as error:  # the readers raise various exceptions on damaged files
        raise PointError(f"{path}: is neither CSV nor Parquet: {one_line(error)}") from None
    frame.columns = frame.columns.map(str)
    return frame


def _check_size(path: Path) -> None:
    """Raise ValueError if a Parquet file has more cells than a table may have.

    The size of the file does not limit them: a column of a single value takes almost no space, for
    any number of rows.
    """
    from pyarrow.parquet import read_metadata

    said = read_metadata(path)
    _check_columns(path, said.num_columns)
    if said.num_rows * said.num_columns > _MOST_CELLS:
        raise ValueError(f"{said.num_rows:,} rows of {said.num_columns:,} columns are too many")


def _check_columns(path: Path, columns: int) -> None:
    if columns > _MOST_COLUMNS:
        raise PointError(
            f"{path}: has {columns:,} columns, at most {_MOST_COLUMNS:,} are supported; keep "
            "fewer, or save it as .npy (data.source: arrays)"
        )


def _read_csv(path: Path) -> pd.DataFrame:
    """Read a CSV file; blanks around cells are ignored, also around numbers and missing values."""
    import pandas as pd

    file = plain_text(path)
    _check_columns(path, len(first_row(file)))
    frame = _parsed(file)
    padded = {}
    for name in frame.columns:
        if kind_of(frame[name]) == "string":
            text = frame[name].str.strip()
            if not text.equals(frame[name]):
                padded[name] = text
    if padded:
        again = _parsed(io.StringIO(pd.DataFrame(padded).to_csv(index=False)))
        for name, column in zip(padded, again.columns, strict=True):
            frame[name] = again[column]
    return frame


def _parsed(file: Path | io.BytesIO | io.StringIO) -> pd.DataFrame:
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            return pd.read_csv(
                file, skipinitialspace=True, na_values=MISSING, low_memory=False, index_col=False,
                compression=None,
            )  # fmt: skip
        except pd.errors.ParserWarning:
            raise ValueError("its rows have more cells than its header") from None


def _classes(target: pd.Series[Any], path: Path) -> tuple[Ints, int]:
    """Return labels, int64 (n,), and the number of classes."""
    if missing := int(target.isna().sum()):
        raise PointError(
            f"{path}: the target {target.name} is missing in {missing} of {len(target)} rows"
        )
    values = target.to_numpy()
    if values.dtype.kind == "f" and np.any(values != np.round(values)):
        raise PointError(
            f"data.target: {target.name} of {path} holds fractions, so it is no class; bin it first"
        )
    kind = kind_of(target)
    if kind in ("mixed", "mixed-integer"):
        raise PointError(
            f"data.target: {target.name} of {path} holds values of type {kind}; a class must be "
            "all numbers or all text"
        )
    names, labels = np.unique(values, return_inverse=True)
    if len(names) < 2:
        raise PointError(f"data.target: {target.name} of {path} has {len(names)} classes; needs 2")
    return labels.astype(np.int64), len(names)
