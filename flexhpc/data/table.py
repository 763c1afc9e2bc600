"""Any table with a header: CSV, also gzipped, or Parquet."""

from __future__ import annotations

import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flexhpc.data.dataset import Ints, Part, Source, no_test
from flexhpc.data.encode import fit_encoding
from flexhpc.errors import PointError
from flexhpc.spec.sections import Table

if TYPE_CHECKING:
    import pandas as pd

UNREADABLE = (OSError, EOFError, ValueError, ImportError, zlib.error)
"""What reading a damaged table may raise."""
MISSING = ["?"]
"""What stands for a missing value, beside pandas' own list (an empty cell, NA, NaN, ...)."""


def open_table(data: Table) -> Source:
    """Open the table of a point: float32 (n, features). Classes are the target's sorted values.

    Raises:
        PointError: no such file or column, unreadable, or the target is no class.
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
    labels, classes = _classes(frame[data.target], path)
    features = frame.drop(columns=[data.target, *(name for name in drop if name != data.target)])
    if not len(features.columns):
        raise PointError(f"{path}: has no column but the target")
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
        with path.open("rb") as file:
            is_parquet = file.read(4) == b"PAR1"
        frame = pd.read_parquet(path) if is_parquet else _read_csv(path)
    except UNREADABLE as error:
        raise PointError(f"{path}: is neither CSV nor Parquet: {one_line(error)}") from None
    frame.columns = frame.columns.map(str)
    return frame


def _read_csv(path: Path) -> pd.DataFrame:
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            return pd.read_csv(
                path, skipinitialspace=True, na_values=MISSING, low_memory=False, index_col=False
            )
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
    try:
        found, labels = np.unique(values, return_inverse=True)
    except TypeError:
        raise PointError(f"data.target: {target.name} of {path} mixes numbers and text") from None
    if len(found) < 2:
        raise PointError(f"data.target: {target.name} of {path} has {len(found)} classes; needs 2")
    return labels.astype(np.int64), len(found)


def one_line(error: Exception) -> str:
    """Return an error's message on one line, cut where it is long."""
    return " ".join(str(error).split())[:200] or type(error).__name__
