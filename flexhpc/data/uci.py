"""Read three UCI tables (Covertype, Adult, credit card clients) in their published formats.

Shape and classes are checked instead of checksums, because copies of the same table differ in
headers and spacing.
"""

from __future__ import annotations

import functools
import math
import pickle
import re
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flexhpc.atomic import read_regular_file
from flexhpc.config.sections.data import KnownTable
from flexhpc.data.dataset import Array, Source, Split
from flexhpc.data.encode import encode, fit_encoding, standardised_mask
from flexhpc.data.raw_files import MAX_BYTES, convert_read_errors
from flexhpc.data.standard_files import find_table
from flexhpc.data.table import normalise_column, read_csv
from flexhpc.errors import PointError

if TYPE_CHECKING:
    import pandas as pd

_FILES = {
    "covtype": (
        "covtype.data.gz", "covtype.data", "samples_py3", "samples", "covtype.csv",
        "covtype_15k.csv",
    ),
    "adult": ("adult.data", "adult.csv"),
    "credit": (
        *(f"default of credit card clients.{end}" for end in ("xls", "xlsx", "csv")),
        "uci_credit_card.csv",
    ),
}  # fmt: skip
"""Table -> names of its file in lower case, in order of priority."""
_COVTYPE_FEATURES, _COVTYPE_NUMBERS, _COVTYPE_CLASSES = 54, 10, 7
_ADULT_CLASSES = ["<=50K", ">50K"]
_ADULT_NUMBERS = (0, 2, 4, 10, 11, 12)
_ADULT_COLUMNS = 15
_CREDIT_TARGETS = {"default payment next month", "default.payment.next.month", "y"}
_CREDIT_FEATURES, _CREDIT_CATEGORICAL = 23, ("1", "2", "3")
_MAX_COLUMNS, _MAX_ROWS = 100, 600_000
"""Maximum numbers of columns and rows of a CSV file. The largest table is covtype, with 55 columns
and 581,012 rows."""
_MAX_BYTES = 2**28
"""Maximum size of a table after decompression. The largest table, covtype, takes 75 MB."""
_MAX_CELLS = 2**24
"""Maximum number of cells of an Excel sheet. The sheet of ``credit`` has 750,000 cells."""
_REFERENCE = re.compile(rb"\br\s*=\s*[\"']([A-Za-z]{0,3})(\d{1,7})[\"']")
"""XML attribute with the position of a cell or row in an Excel sheet, such as r="AB12"."""


def open_known_table(data: KnownTable) -> Source:
    """Open ``covtype``, ``adult`` or ``credit``; the samples are float32 (n, features).

    Raises:
        PointError: the file is missing or unreadable, or has an unexpected shape or class.
    """
    openers = {"covtype": _open_covtype, "adult": _open_adult, "credit": _open_credit}
    return openers[data.source](data.root)


def find_known_table(source: str, root: str | None) -> Path:
    """Return the path of the file of ``covtype``, ``adult`` or ``credit``.

    Raises:
        PointError: the file is not found; the message says how to get it.
    """
    return find_table(source, root, _FILES[source])


def _open_covtype(root: str | None) -> Source:
    """Open Covertype: 10 numeric columns, then 44 one-hot encoded columns; 7 classes."""
    path = find_known_table("covtype", root)
    if path.name.startswith("samples"):
        inputs, labels = _read_covtype_cache(path)
    else:
        frame = _read_csv(path, header="detect", dtype=np.float32)
        if str(frame.columns[0]).lower() == "id":
            frame = frame.drop(columns=frame.columns[0])
        values = frame.to_numpy()
        inputs, labels = np.ascontiguousarray(values[:, :-1]), values[:, -1]
    if inputs.shape[1] != _COVTYPE_FEATURES:
        raise PointError(
            f"{path}: has {inputs.shape[1]} features, but each row of covtype has "
            f"{_COVTYPE_FEATURES} features, followed by the label"
        )
    classes = np.arange(1, _COVTYPE_CLASSES + 1)
    if not len(labels) or not np.isin(labels, classes).all() or not np.isfinite(inputs).all():
        raise PointError(
            f"{path}: labels must be from 1 to {_COVTYPE_CLASSES}, and features must be finite "
            "numbers"
        )
    return Source(
        name=f"covtype {path}",
        classes=_COVTYPE_CLASSES,
        train=Split.from_arrays(inputs, labels.astype(np.int64) - 1),
        standardised_mask=np.arange(_COVTYPE_FEATURES) < _COVTYPE_NUMBERS,
    )


def _read_covtype_cache(path: Path) -> tuple[Array, Array]:
    """Return the inputs and labels that scikit-learn's fetch_covtype has cached.

    Inputs are float32 (n, 54), labels are int32 (n,). The inputs are read from ``path``
    (samples_py3 or samples), and the labels from targets_py3 or targets in the same folder.
    """
    content = _read_joblib(path)
    # The raw values are stored after a pickle of dtype and shape, which is shorter than a row.
    count = (len(content) - 1) // (8 * _COVTYPE_FEATURES)
    inputs = _parse_joblib_array(path, content, np.dtype("<f8"), (count, _COVTYPE_FEATURES))
    targets = path.with_name(path.name.replace("samples", "targets"))
    labels = _parse_joblib_array(targets, _read_joblib(targets), np.dtype("<i4"), (count,))
    return inputs.astype(np.float32), labels


def _read_joblib(path: Path) -> bytes:
    """Return the content of a joblib file, decompressed if it is compressed with zlib."""
    with convert_read_errors(path, "scikit-learn's cache of covtype"):
        content = read_regular_file(path, MAX_BYTES)
        is_plain = content.startswith(b"\x80")
        return content if is_plain else zlib.decompressobj().decompress(content, MAX_BYTES)


def _parse_joblib_array(
    path: Path, content: bytes, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> Array:
    """Extract the array from the content of a joblib file.

    The content consists of a pickle of dtype and shape, the raw values and one byte, in this order.
    The pickle is not loaded, because loading could run code. It is only searched for the bytes that
    encode the expected dtype and shape.
    """
    kind = f"scikit-learn's cache of covtype, an array of dtype {dtype} and shape {shape}"
    with convert_read_errors(path, kind):
        start = len(content) - 1 - math.prod(shape) * dtype.itemsize
        pickle_bytes = content[: max(start, 0)]
        encoded = pickle.dumps(shape, protocol=2)[2:-3]  # without PROTO, BINPUT and STOP
        if encoded not in pickle_bytes or dtype.str[1:].encode() not in pickle_bytes:
            raise ValueError("its dtype or shape is unexpected, or the file is truncated")
        return np.frombuffer(content, dtype, math.prod(shape), start).reshape(shape)


def _open_adult(root: str | None) -> Source:
    """Open Adult (census income): 6 numeric columns and 8 text columns; 2 classes."""
    path = find_known_table("adult", root)
    frame, labels = _read_adult(path)
    encoding = fit_encoding(frame, (), path)

    def open_test_split() -> Split | None:
        for file in path.parent.glob("*"):
            if file.name.lower() == "adult.test":
                frame, labels = _read_adult(file)
                return Split.from_arrays(encode(encoding, frame, file), labels)
        return None

    return Source(
        name=f"adult {path}",
        classes=len(_ADULT_CLASSES),
        train=Split.from_arrays(encode(encoding, frame, path), labels),
        open_test=open_test_split,
        standardised_mask=standardised_mask(encoding),
    )


def _read_adult(path: Path) -> tuple[pd.DataFrame, Array]:
    """Return the features and the labels of adult.data or adult.test.

    The file may have a header. Lines that start with `|` are skipped.
    """
    frame = _read_csv(path, header="detect", dtype=str, comment="|")
    if frame.shape[1] != _ADULT_COLUMNS:
        raise PointError(f"{path}: has {frame.shape[1]} columns, but adult has {_ADULT_COLUMNS}")
    frame = frame.set_axis([str(i) for i in range(_ADULT_COLUMNS)], axis=1)
    texts = frame.pop(str(_ADULT_COLUMNS - 1)).str.removesuffix(".")
    if not len(texts) or not texts.isin(_ADULT_CLASSES).all():
        raise PointError(f"{path}: labels must be {' or '.join(_ADULT_CLASSES)}")
    with convert_read_errors(path, "adult's table"):
        numbers = {str(i): np.float64 for i in _ADULT_NUMBERS}
        return frame.astype(numbers), (texts == _ADULT_CLASSES[1]).to_numpy()


def _open_credit(root: str | None) -> Source:
    """Open UCI's "Default of Credit Card Clients": 23 features (3 categorical) and 2 classes."""
    path = find_known_table("credit", root)
    if path.suffix.lower() in (".xls", ".xlsx"):
        frame = _read_excel(path)
    else:
        frame = _read_csv(path, header=None, dtype=str)
    has_two_headers = len(frame) > 1 and str(frame.iloc[1, 0]).strip().lower() == "id"
    header = 1 if has_two_headers else 0  # UCI's file has a row X1, X2, ... above the names
    names = frame.iloc[header].fillna("").astype(str).str.strip().str.lower().tolist()
    targets = [i for i, name in enumerate(names) if name in _CREDIT_TARGETS]
    features = [i for i, name in enumerate(names) if name != "id" and i not in targets]
    if len(targets) != 1 or len(features) != _CREDIT_FEATURES:
        raise PointError(
            f"{path}: needs a header with the target (`default payment next month` or Y) and "
            f"{_CREDIT_FEATURES} features, not counting ID; its header is {', '.join(names)}"
        )
    with convert_read_errors(path, "credit's table"):
        values = frame.iloc[header + 1 :].astype(np.float64)
    labels = values.iloc[:, targets[0]].to_numpy()
    if not len(labels) or not np.isin(labels, (0, 1)).all():
        raise PointError(f"{path}: the target must be 0 or 1")
    columns = [str(i) for i in range(_CREDIT_FEATURES)]
    table = values.iloc[:, features].set_axis(columns, axis=1)
    encoding = fit_encoding(table, _CREDIT_CATEGORICAL, path)
    return Source(
        name=f"credit {path}",
        classes=2,
        train=Split.from_arrays(encode(encoding, table, path), labels),
        standardised_mask=standardised_mask(encoding),
    )


def _read_csv(path: Path, **options: Any) -> pd.DataFrame:
    with convert_read_errors(path, "a CSV table"):
        frame = read_csv(path, _MAX_COLUMNS, _MAX_BYTES, nrows=_MAX_ROWS + 1, **options)
        if len(frame) > _MAX_ROWS:
            raise ValueError(f"it has more than {_MAX_ROWS:,} rows")
        return frame.apply(normalise_column) if options["dtype"] is str else frame


def _read_excel(path: Path) -> pd.DataFrame:
    import pandas as pd

    with convert_read_errors(path, "an Excel file"):
        if zipfile.is_zipfile(path):
            _check_excel_size(path)
        return pd.read_excel(path, header=None, dtype=str, engine="calamine")


def _check_excel_size(path: Path) -> None:
    """Raise ValueError if an .xlsx file is too large or a sheet has too many cells.

    This is checked because the Excel reader allocates memory for all cells up to the last one, and
    aborts the process if memory runs out.
    """
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > _MAX_BYTES:
            raise ValueError(f"larger than {_MAX_BYTES:,} bytes after decompression")
        for name in archive.namelist():
            cells = {(b"", b"0"), *_REFERENCE.findall(archive.read(name))}
            width = max(_column_number(column) for column, _ in cells)
            height = max(int(row) for _, row in cells)
            if width * height > _MAX_CELLS:
                raise ValueError(f"{name} has too many cells: {height:,} rows x {width:,} columns")


def _column_number(letters: bytes) -> int:
    """Return the number of a column in an Excel sheet: 1 for A, 27 for AA."""
    return functools.reduce(lambda number, letter: 26 * number + letter - 64, letters.upper(), 0)
