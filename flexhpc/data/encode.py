"""Encode tables as float32: numeric columns as numbers, all other columns one-hot.

scikit-learn's ColumnTransformer is not used because importing scikit-learn takes 3 s.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flexhpc.data.dataset import Array, Mask
from flexhpc.errors import PointError

if TYPE_CHECKING:
    import pandas as pd

_MAX_CATEGORIES = 1_000
_MAX_VALUES = 2**31
"""Maximum number of values of an encoded table; as float32, they take 8 GiB."""
_MAX_TEXT_FRACTION = 0.05
_MIN_DISTINCT_NUMBERS = 20
"""A text column is rejected if it contains more than ``_MIN_DISTINCT_NUMBERS`` distinct numbers and
at most a fraction ``_MAX_TEXT_FRACTION`` of its cells are not numbers, because these cells are
probably typing errors."""
_FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True, kw_only=True)
class Column:
    """Encoding of one column of a table.

    Attributes:
        name: name of the column.
        categories: sorted distinct values, each encoded as one feature; None for a numeric column.
        has_indicator: whether an additional feature indicates missing values.
        offset: number that is subtracted from all numbers of the column before they are converted
            to float32.
    """

    name: str
    categories: list[Any] | None
    has_indicator: bool
    offset: float

    @property
    def width(self) -> int:
        """Number of features that encode the column."""
        return (1 if self.categories is None else len(self.categories)) + self.has_indicator


def fit_encoding(frame: pd.DataFrame, categorical: Collection[str], path: Path) -> list[Column]:
    """Choose the encoding of each column of a table.

    Args:
        frame: the table, without its target column.
        categorical: columns that are encoded one-hot, in addition to text columns.
        path: the file, for messages.

    Raises:
        PointError: a column contains values other than numbers and text, is numeric except for a
            few cells, or has too many categories.
    """
    from pandas.api.types import infer_dtype, is_numeric_dtype

    columns = []
    for name in frame.columns:
        series = frame[name]
        numeric = is_numeric_dtype(series.dtype)
        categories, offset = None, 0.0
        if numeric and name not in categorical:
            offset = _choose_offset(_to_float64(series, path))
        else:
            if name not in categorical:
                _check_not_mostly_numeric(series, path)
            if not numeric and (kind := infer_dtype(series)) not in ("string", "empty"):
                raise _column_error(series, path, f"has values of type {kind}")
            categories = sorted(series.dropna().unique())
            if len(categories) > _MAX_CATEGORIES:
                problem = f"has {len(categories)} categories (maximum {_MAX_CATEGORIES})"
                raise _column_error(series, path, problem)
        missing = bool(series.isna().any())
        columns.append(
            Column(name=name, categories=categories, has_indicator=missing, offset=offset)
        )
    return columns


def encode(encoding: list[Column], frame: pd.DataFrame, path: Path) -> Array:
    """Encode a table as float32 (n, features).

    ``encoding`` is the result of :func:`fit_encoding`. A missing number is encoded as NaN; a
    missing or unknown category as zeros. The feature that indicates missing values, if a column has
    one, is 1 for a missing value and 0 otherwise.

    Raises:
        PointError: a numeric column contains text, or a number beyond the range of float32; or
            the encoded table is too large.
    """
    import pandas as pd

    width = sum(column.width for column in encoding)
    if len(frame) * width > _MAX_VALUES:
        raise PointError(
            f"{path}: too many values after encoding ({len(frame):,} rows x {width:,} "
            f"features, maximum {_MAX_VALUES:,}); remove columns with data.drop"
        )
    encoded = np.zeros((len(frame), width), dtype=np.float32)
    start = 0
    for column in encoding:
        series = frame[column.name]
        if column.categories is None:
            encoded[:, start] = _to_float64(series, path) - column.offset
        else:
            codes = pd.Index(column.categories).get_indexer(pd.Index(series))
            rows = np.flatnonzero((codes >= 0) & series.notna().to_numpy())
            encoded[rows, start + codes[rows]] = 1
        start += column.width
        if column.has_indicator:
            encoded[:, start - 1] = series.isna()
    encoded += np.float32(0)  # one bit pattern for 0 and one for NaN, because rows are hashed
    encoded[np.isnan(encoded)] = np.nan
    return encoded


def standardised_mask(encoding: list[Column]) -> Mask:
    """Return a bool mask of shape (features,): True for the features to standardise, which contain
    the values of numeric columns."""
    return np.concatenate([np.arange(c.width) < (c.categories is None) for c in encoding])


def _column_error(series: pd.Series[Any], path: Path, problem: str) -> PointError:
    return PointError(
        f"{path}: column {series.name} {problem}; correct it, or remove it with data.drop"
    )


def _check_not_mostly_numeric(series: pd.Series[Any], path: Path) -> None:
    """Raise PointError if almost all cells of a text column are numbers."""
    import pandas as pd

    cells = series.dropna()
    try:
        numbers = pd.to_numeric(cells, errors="coerce")
    except OverflowError:
        raise _too_large_error(series, path) from None
    not_numbers = numbers.isna()
    if (
        0 < not_numbers.sum() <= _MAX_TEXT_FRACTION * len(cells)
        and numbers.nunique() > _MIN_DISTINCT_NUMBERS
    ):
        row = int(np.flatnonzero(series.notna())[np.flatnonzero(not_numbers)[0]])
        raise PointError(
            f"{path}: column {series.name} is numeric except for {int(not_numbers.sum())} cells "
            f"(the first is {cells[not_numbers].iloc[0]!r} in row {row + 1}); correct them, or add "
            "the column to data.categorical or data.drop"
        )


def _to_float64(series: pd.Series[Any], path: Path) -> Array:
    """Return a numeric column as float64 (n,)."""
    try:
        values = series.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        raise _column_error(series, path, "must contain only numbers") from None
    except OverflowError:
        raise _too_large_error(series, path) from None
    if np.any(np.abs(values) > _FLOAT32_MAX):
        raise _too_large_error(series, path)
    return values


def _too_large_error(series: pd.Series[Any], path: Path) -> PointError:
    return _column_error(
        series, path, "contains infinite numbers, or numbers that are too large for float32"
    )


def _choose_offset(values: Array) -> float:
    """Return the offset of a numeric column; see :class:`Column`.

    Large numbers that are close to each other, such as timestamps, can collide: they become equal
    when they are rounded to float32. The offset is the median if subtracting it avoids more than
    half of the collisions, and 0 otherwise.
    """
    distinct = np.unique(values[~np.isnan(values)])
    collisions = len(distinct) - len(np.unique(distinct.astype(np.float32)))
    if not collisions:
        return 0.0
    median = distinct[len(distinct) // 2]
    shifted = distinct - median
    if np.abs(shifted).max() > _FLOAT32_MAX:
        return 0.0
    remaining_collisions = len(distinct) - len(np.unique(shifted.astype(np.float32)))
    return float(median) if 2 * remaining_collisions < collisions else 0.0
