"""The cells of a table as what they say: text without blanks around it, truth as 0 and 1."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

MISSING = ["?"]
"""What stands for a missing value, beside pandas' own list (an empty cell, NA, NaN, ...)."""


def kind_of(series: pd.Series[Any]) -> str:
    """Return what a column holds beside missing values, in pandas' words: ``string``, ..."""
    import pandas as pd

    return pd.api.types.infer_dtype(series, skipna=True)


def tidied(series: pd.Series[Any]) -> pd.Series[Any]:
    """Return a column in which a value looks the same whatever format it was read from.

    Blanks around text go, and text that is empty or stands for a missing value is missing; booleans
    are 0.0 and 1.0; categories of pandas are the values that they stand for.
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
