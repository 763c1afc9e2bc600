"""Three UCI tables, in the file formats in which they are distributed.

Checksums are not compared, because copies differ in headers and spacing but not in their values.
Shape and classes are checked.
"""

from __future__ import annotations

import functools
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flexhpc.data.cells import MISSING, first_row, tidied
from flexhpc.data.dataset import Array, Part, Source, no_test
from flexhpc.data.encode import Encoding, fit_encoding
from flexhpc.data.places import find_table
from flexhpc.data.safe_pickle import read_joblib
from flexhpc.data.unpacked import plain_text
from flexhpc.errors import PointError, one_line

if TYPE_CHECKING:
    import pandas as pd

_COVTYPE_FILES = (
    "covtype.data.gz", "covtype.data", "samples_py3", "samples", "covtype.csv", "covtype_15k.csv",
)  # fmt: skip
_COVTYPE_FEATURES, _COVTYPE_NUMBERS, _COVTYPE_CLASSES = 54, 10, 7
_ADULT_CLASSES = ("<=50K", ">50K")
_ADULT_NUMBERS = (0, 2, 4, 10, 11, 12)
_ADULT_COLUMNS = 15
_CREDIT_FILES = tuple(f"default of credit card clients.{end}" for end in ("xls", "xlsx", "csv"))
_CREDIT_TARGETS = {"default payment next month", "default.payment.next.month", "y"}
_CREDIT_FEATURES, _CREDIT_CATEGORICAL = 23, ("1", "2", "3")
_EXCEL = (".xls", ".xlsx")
_MOST_COLUMNS, _MOST_ROWS = 100, 600_000
"""Limits of a CSV file: covtype has 55 columns and 581,012 rows, adult and credit have fewer."""
_MOST_BYTES = 2**28
"""Maximum size of an uncompressed table: covtype has 75 MB."""
_MOST_CELLS = 2**24
"""Maximum number of cells of an Excel sheet: credit has 750,000."""
_REFERENCE = re.compile(rb"\br\s*=\s*[\"']([A-Za-z]{0,3})(\d{1,7})[\"']")
"""Attribute of a cell or row in an Excel sheet, such as r="AB12"."""


def open_known_table(source: str, root: str | None) -> Source:
    """Open ``covtype``, ``adult`` or ``credit``: float32 (n, features).

    Raises:
        PointError: the file is not found, unreadable, or has another shape or other classes.
    """
    openers: dict[str, Callable[[str | None], Source]] = {
        "covtype": _open_covtype,
        "adult": _open_adult,
        "credit": _open_credit,
    }
    return openers[source](root)


def _open_covtype(root: str | None) -> Source:
    """Open Covertype: 10 numeric columns, then 44 columns that are already one-hot; 7 classes."""
    path = find_table("covtype", root, _COVTYPE_FILES)
    if path.name.startswith("samples"):
        inputs, labels = _covtype_cache(path)
    else:
        inputs, labels = _covtype_csv(path)
    if inputs.shape[1:] != (_COVTYPE_FEATURES,) or labels.shape != inputs.shape[:1]:
        raise PointError(
            f"{path}: holds {inputs.shape} values and {labels.shape} labels; covtype has "
            f"{_COVTYPE_FEATURES} features and a label in each row"
        )
    wanted = np.arange(1, _COVTYPE_CLASSES + 1)
    if not len(labels) or not np.isin(labels, wanted).all() or not np.isfinite(inputs).all():
        raise PointError(f"{path}: labels must be 1 to {_COVTYPE_CLASSES}, and no value missing")
    return Source(
        name=f"covtype {path}",
        classes=_COVTYPE_CLASSES,
        train=Part.of(inputs, labels.astype(np.int64) - 1),
        test=no_test,
        scaled=np.arange(_COVTYPE_FEATURES) < _COVTYPE_NUMBERS,
    )


def _covtype_cache(path: Path) -> tuple[Array, Array]:
    """Read the two files of the cache of scikit-learn's fetch_covtype."""
    targets = path.with_name(path.name.replace("samples", "targets"))
    arrays = []
    for file, dtype in ((path, np.float32), (targets, np.float64)):
        try:
            arrays.append(read_joblib(file).astype(dtype))
        except Exception as error:
            raise PointError(
                f"{file}: not an array in joblib's format: {one_line(error)}"
            ) from None
    inputs, labels = arrays
    return inputs, labels[:, 0] if labels.shape[1:] == (1,) else labels


def _covtype_csv(path: Path) -> tuple[Array, Array]:
    """Read UCI's file without a header, or a copy with one; the label is the last column."""
    header = 0 if _names_columns(_first_cell(path)) else None
    frame = _csv(path, header=header, dtype=np.float32)
    if header == 0 and str(frame.columns[0]).lower() == "id":
        frame = frame.drop(columns=frame.columns[0])
    values = frame.to_numpy()
    return np.ascontiguousarray(values[:, :-1]), values[:, -1]


def _open_adult(root: str | None) -> Source:
    """Open Adult (census income): 6 numeric columns and 8 columns of text; 2 classes."""
    path = find_table("adult", root, ("adult.data", "adult.csv"))
    frame, labels = _read_adult(path)
    encoding = fit_encoding(frame, (), str(path))

    def test() -> Part | None:
        beside = next((p for p in path.parent.glob("*") if p.name.lower() == "adult.test"), None)
        return _adult_part(*_read_adult(beside), encoding, beside) if beside else None

    return Source(
        name=f"adult {path}",
        classes=len(_ADULT_CLASSES),
        train=_adult_part(frame, labels, encoding, path),
        test=test,
        scaled=encoding.scaled,
    )


def _read_adult(path: Path) -> tuple[pd.DataFrame, Array]:
    """Read adult.data or adult.test, with or without a header; lines that start with `|` are
    skipped."""
    frame = _csv(path, header=None, dtype=str, comment="|")
    if frame.shape[1] != _ADULT_COLUMNS:
        raise PointError(f"{path}: has {frame.shape[1]} columns; adult has {_ADULT_COLUMNS}")
    frame.columns = frame.columns.map(str)
    if _names_columns(_first_cell(path, "|")):
        frame = frame.iloc[1:]
    texts = frame[str(_ADULT_COLUMNS - 1)].str.removesuffix(".")
    labels = np.array([_ADULT_CLASSES.index(t) if t in _ADULT_CLASSES else -1 for t in texts])
    if not len(labels) or labels.min() < 0:
        raise PointError(f"{path}: labels must be {' or '.join(_ADULT_CLASSES)}")
    frame = frame.drop(columns=str(_ADULT_COLUMNS - 1))
    try:
        return frame.astype({str(i): np.float64 for i in _ADULT_NUMBERS}), labels
    except (ValueError, OverflowError) as error:
        raise PointError(f"{path}: {one_line(error)}") from None


def _adult_part(frame: pd.DataFrame, labels: Array, encoding: Encoding, path: Path) -> Part:
    return Part.of(encoding.encode(frame, str(path)), labels)


def _open_credit(root: str | None) -> Source:
    """Open Default of credit card clients: 23 columns, of which 3 are categorical; 2 classes."""
    path = find_table("credit", root, (*_CREDIT_FILES, "uci_credit_card.csv"))
    frame = _read_excel(path) if path.suffix.lower() in _EXCEL else _csv(path, None, str)
    names = [str(name).strip().lower() for name in frame.iloc[0]]
    if len(frame) > 1 and str(frame.iloc[1, 0]).strip().lower() == "id":  # UCI has a row X1.. above
        names = [str(name).strip().lower() for name in frame.iloc[1]]
        frame = frame.iloc[1:]
    targets = [i for i, name in enumerate(names) if name in _CREDIT_TARGETS]
    features = [i for i, name in enumerate(names) if name != "id" and i not in targets]
    if len(targets) != 1 or len(features) != _CREDIT_FEATURES:
        raise PointError(
            f"{path}: needs a header with `default payment next month` (or Y) and "
            f"{_CREDIT_FEATURES} more columns beside ID; it has {', '.join(names)}"
        )
    try:
        values = frame.iloc[1:].astype(np.float64)
    except (ValueError, OverflowError) as error:
        raise PointError(f"{path}: {one_line(error)}") from None
    labels = values.iloc[:, targets[0]].to_numpy()
    if not len(labels) or not np.isin(labels, (0, 1)).all():
        raise PointError(f"{path}: the target must be 0 or 1")
    table = values.iloc[:, features]
    table.columns = table.columns.__class__([str(i) for i in range(_CREDIT_FEATURES)])
    encoding = fit_encoding(table, _CREDIT_CATEGORICAL, str(path))
    return Source(
        name=f"credit {path}",
        classes=2,
        train=Part.of(encoding.encode(table, str(path)), labels),
        test=no_test,
        scaled=encoding.scaled,
    )


def _read_excel(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        _check_sheets(path)
        return pd.read_excel(path, header=None, dtype=str, engine="calamine")
    except Exception as error:  # the readers raise various exceptions on damaged files
        raise PointError(f"{path}: cannot be read: {one_line(error)}") from None


def _check_sheets(path: Path) -> None:
    """Raise ValueError if an .xlsx file is larger, or refers to more cells, than a table may.

    The reader allocates every cell up to the last one, and aborts the process if it cannot.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > _MOST_BYTES:
            raise ValueError(f"is larger than {_MOST_BYTES:,} bytes once unpacked")
        for name in archive.namelist():
            columns, rows = {b""}, {b"0"}
            for reference in _REFERENCE.finditer(archive.read(name)):
                columns.add(reference[1])
                rows.add(reference[2])
            width, height = max(map(_column_number, columns)), max(map(int, rows))
            if width * height > _MOST_CELLS:
                raise ValueError(f"{name}: {height:,} rows of {width:,} columns are too many")


def _column_number(letters: bytes) -> int:
    return functools.reduce(lambda number, letter: 26 * number + letter - 64, letters.upper(), 0)


def _csv(
    path: Path,
    header: int | None,
    dtype: type,
    comment: str | None = None,
) -> pd.DataFrame:
    import pandas as pd

    try:
        text = plain_text(path, _MOST_BYTES)
        if (columns := len(first_row(text, comment))) > _MOST_COLUMNS:
            raise ValueError(f"has {columns:,} columns")
        frame = pd.read_csv(
            text, header=header, dtype=dtype, comment=comment, skipinitialspace=True,
            na_values=MISSING, compression=None, nrows=_MOST_ROWS + 1,
        )  # fmt: skip
        if len(frame) > _MOST_ROWS:
            raise ValueError(f"has more than {_MOST_ROWS:,} rows")
        return frame.apply(tidied) if dtype is str else frame
    except Exception as error:  # the readers raise various exceptions on damaged files
        raise PointError(f"{path}: cannot be read as a table: {one_line(error)}") from None


def _first_cell(path: Path, comment: str | None = None) -> str:
    """Return the first cell of a table as text, empty if it has none."""
    try:
        return next(iter(first_row(plain_text(path, _MOST_BYTES), comment)), "")
    except (OSError, ValueError) as error:
        raise PointError(f"{path}: cannot be read as a table: {one_line(error)}") from None


def _names_columns(first: str) -> bool:
    """Return whether the first cell of a table implies that its row is a header."""
    if first.strip() in ("", *MISSING):
        return False
    try:
        float(first)
    except ValueError:
        return True
    return False
