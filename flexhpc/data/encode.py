"""Encode the columns of a table: numeric ones as numbers, all others one-hot."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flexhpc.data.cells import kind_of
from flexhpc.data.dataset import Array, Mask
from flexhpc.errors import PointError

if TYPE_CHECKING:
    import pandas as pd

_MOST_CATEGORIES = 1_000
_MOST_NUMBERS = 2**31
"""Maximum number of values of an encoded table: 8 GB."""
_TEXT = {"string", "empty"}
_FEW, _MANY = 0.05, 20
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, kw_only=True)
class Column:
    """Encoding of one column of a table.

    Attributes:
        name: name of the column.
        categories: sorted values, one feature each; None for a numeric column.
        marked: whether an additional feature indicates missing values.
        offset: subtracted from numbers before the conversion to float32.
    """

    name: str
    categories: tuple[Any, ...] | None
    marked: bool
    offset: float = 0.0

    @property
    def width(self) -> int:
        """Number of features."""
        return (1 if self.categories is None else len(self.categories)) + self.marked


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """Encoding of a table, in the order of its columns."""

    columns: tuple[Column, ...]

    @property
    def scaled(self) -> Mask:
        """Which features are standardised: those of numeric columns. Bool (features,)."""
        scaled = []
        for column in self.columns:
            scaled += [column.categories is None] + [False] * (column.width - 1)
        return np.array(scaled, dtype=np.bool_)

    def encode(self, frame: pd.DataFrame, where: str) -> Array:
        """Encode a table as float32 (n, features).

        A missing number is NaN, an unknown category is all zeros.

        Raises:
            PointError: a numeric column contains text, or a number beyond the range of float32; or
                the encoded table is too large.
        """
        if len(frame) * len(self.scaled) > _MOST_NUMBERS:
            raise PointError(
                f"{where}: {len(frame):,} rows of {len(self.scaled):,} features are more than "
                f"{_MOST_NUMBERS:,} numbers; remove columns with data.drop"
            )
        encoded = np.zeros((len(frame), len(self.scaled)), dtype=np.float32)
        at = 0
        for column in self.columns:
            series = frame[column.name]
            missing = series.isna().to_numpy()
            if column.categories is None:
                encoded[:, at] = _as_float32(_numbers(series, where) - column.offset)
            else:
                rows, codes = _codes(series, column.categories)
                encoded[rows, at + codes] = 1
            if column.marked:
                encoded[:, at + column.width - 1] = missing
            at += column.width
        return encoded


def fit_encoding(frame: pd.DataFrame, categorical: Collection[str], where: str) -> Encoding:
    """Return the encoding of a table.

    Args:
        frame: the table, without its target.
        categorical: numeric columns that are categorical; text columns always are.
        where: the file, for messages.

    Raises:
        PointError: a column contains neither numbers nor text, or too many different texts.
    """
    import pandas as pd

    columns = []
    for name in frame.columns:
        series = frame[name]
        categories, offset = None, 0.0
        if name in categorical or not pd.api.types.is_numeric_dtype(series.dtype):
            if name not in categorical:
                _check_not_numbers(series, where)
            categories = _categories(series, where)
        else:
            offset = _offset(_numbers(series, where))
        marked = bool(series.isna().any())
        columns.append(Column(name=name, categories=categories, marked=marked, offset=offset))
    return Encoding(columns=tuple(columns))


def _categories(series: pd.Series[Any], where: str) -> tuple[Any, ...]:
    import pandas as pd

    if not pd.api.types.is_numeric_dtype(series.dtype):
        kind = kind_of(series)
        if kind not in _TEXT:
            raise PointError(
                f"{where}: column {series.name} holds values of type {kind}; make them numbers or "
                "text, or leave them out with data.drop"
            )
    categories = series.dropna().unique()
    if len(categories) > _MOST_CATEGORIES:
        raise PointError(
            f"{where}: column {series.name} has {len(categories)} different values, too many for "
            f"one feature each (at most {_MOST_CATEGORIES}); leave it out with data.drop"
        )
    return tuple(sorted(categories))


def _check_not_numbers(series: pd.Series[Any], where: str) -> None:
    """Raise PointError for a text column in which almost all cells are numbers."""
    import pandas as pd

    seen = series.dropna()
    try:
        numbers = pd.to_numeric(seen, errors="coerce")
    except OverflowError:
        raise PointError(_too_large(series, where)) from None
    bad = numbers.isna()
    if 0 < bad.sum() <= _FEW * len(seen) and numbers.nunique() > _MANY:
        row = int(np.flatnonzero(series.notna())[np.flatnonzero(bad)[0]])
        raise PointError(
            f"{where}: column {series.name} holds numbers but for {int(bad.sum())} cells, as "
            f"{seen[bad].iloc[0]!r} in row {row + 1}; correct them, or name the column in "
            "data.categorical or data.drop"
        )


def _codes(series: pd.Series[Any], categories: tuple[Any, ...]) -> tuple[Array, Array]:
    """Return the rows whose value is one of the categories, and the index of the category."""
    import pandas as pd

    codes = pd.Index(categories).get_indexer(pd.Index(series))
    rows = np.flatnonzero((codes >= 0) & series.notna().to_numpy())
    return rows, codes[rows]


def _numbers(series: pd.Series[Any], where: str) -> Array:
    """Return a numeric column as float64 (n,)."""
    try:
        values = series.to_numpy(dtype=np.float64, na_value=np.nan)
    except OverflowError:
        raise PointError(_too_large(series, where)) from None
    except (TypeError, ValueError) as error:
        raise PointError(f"{where}: column {series.name} must hold numbers: {error}") from None
    if np.any(np.abs(values) > _LARGEST):
        raise PointError(_too_large(series, where))
    return values


def _too_large(series: pd.Series[Any], where: str) -> str:
    return (
        f"{where}: column {series.name} holds infinite or too large numbers; correct them, or "
        "leave them out with data.drop"
    )


def _as_float32(values: Array) -> Array:
    """Return float32 (n,), with one bit pattern for zero and one for missing values."""
    numbers: Array = values.astype(np.float32) + np.float32(0)
    numbers[np.isnan(numbers)] = np.nan
    return numbers


def _offset(values: Array) -> float:
    """Return an offset after which float32 distinguishes the numbers, as is needed for dates.

    The offset is 0 if float32 distinguishes all numbers anyway, or if subtraction separates less
    than half of those that coincide: then the numbers have too many digits, and are not too far
    from 0.
    """
    seen = np.unique(values[~np.isnan(values)])
    plain = seen.astype(np.float32)
    lost = len(seen) - len(np.unique(plain))
    if not lost:
        return 0.0
    middle = seen[len(seen) // 2]
    shifted = seen - middle
    if np.abs(shifted).max() > _LARGEST:
        return 0.0
    still_lost = len(seen) - len(np.unique(shifted.astype(np.float32)))
    return float(middle) if 2 * still_lost < lost else 0.0
