"""Restricted unpickler for plain values and numeric arrays.

No NumPy function named by a pickle is called: such functions can be made to interpret arbitrary
bytes as addresses of objects. Stand-ins record their arguments instead, and an array is created
from its bytes after all arguments have been validated.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np

from flexhpc.atomic import read_plain
from flexhpc.data.dataset import Array
from flexhpc.data.unpacked import MOST_BYTES, read_unpacked

_PLAIN_TYPE = re.compile(r"[<>=|]?([biuf][1248]|c8|c16|\?|b|B|[SU]\d{1,4})")
_WRAPPER = ("joblib.numpy_pickle", "NumpyArrayWrapper")
_NO_ARRAY = "holds an array of something else than numbers and short texts"


class _Type:
    """Stand-in for numpy.dtype."""

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or not _PLAIN_TYPE.fullmatch(code):
            raise pickle.UnpicklingError(_NO_ARRAY)
        self.plain = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        _, order, *parts = state
        if any(part is not None for part in parts[:3]) or order not in tuple("<>|="):
            raise pickle.UnpicklingError(_NO_ARRAY)
        self.plain = self.plain.newbyteorder(order)


class _ArrayType:
    """Stand-in for numpy.ndarray, which pickles name but must not call."""

    def __new__(cls, *_: Any) -> _ArrayType:
        raise pickle.UnpicklingError("makes an array of raw memory")


class _Pending:
    """Stand-in for an array whose content follows."""

    array: Array

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, data = state
        self.array = _made(data, kind, shape, "F" if fortran else "C")


def _made(data: Any, kind: Any, shape: Any, order: Any) -> Array:
    """Create an array from its bytes; Python 2 stored the bytes as text."""
    if isinstance(data, str):
        data = data.encode("latin1")
    if not isinstance(data, bytes | bytearray) or not isinstance(kind, _Type):
        raise pickle.UnpicklingError(_NO_ARRAY)
    return np.frombuffer(data, kind.plain).reshape(tuple(shape), order=order)


def _reconstruct(*_: Any) -> _Pending:
    return _Pending()


def _scalar(kind: Any, data: Any) -> Any:
    return _made(data, kind, (1,), "C")[0]


def _frombuffer(data: Any, kind: Any, shape: Any, order: Any, *_: Any) -> Array:
    return _made(data, kind, shape, order)


def _encode(text: str, codec: str) -> bytes:
    if codec not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"holds text in {codec}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    return b""


_ALLOWED: dict[tuple[str, str], Any] = {
    **{
        (f"numpy.{core}.multiarray", name): ours
        for core in ("core", "_core")
        for name, ours in (("_reconstruct", _reconstruct), ("scalar", _scalar))
    },
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,
    ("numpy._core.numeric", "_frombuffer"): _frombuffer,
    ("numpy", "ndarray"): _ArrayType,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
}


def _allowed(module: str, name: str) -> Any:
    """Return the stand-in for an allowed name."""
    if (module, name) not in _ALLOWED:
        raise pickle.UnpicklingError(f"holds {module}.{name}, which is no array")
    return _ALLOWED[module, name]


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return _allowed(module, name)


def unpickle(path: Path) -> Any:
    """Read a pickle of plain values and arrays; text of Python 2 is decoded as latin-1.

    Raises:
        Exception: of any type, if the file is damaged or contains anything else.
    """
    content = read_plain(path, MOST_BYTES)
    return _settled(_ArraysOnly(io.BytesIO(content), encoding="latin1").load())


def _settled(value: Any) -> Any:
    """Return a value with its stand-ins replaced by the arrays."""
    if isinstance(value, _Pending):
        return value.array
    if isinstance(value, dict):
        return {key: _settled(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_settled(inner) for inner in value)
    return value


def read_joblib(path: Path) -> Array:
    """Read the single array of a joblib.dump file, plain or compressed with zlib or gzip.

    Raises:
        Exception: of any type, if the file is damaged or contains anything but numbers.
    """
    from joblib import numpy_pickle

    content = read_unpacked(path, also_zlib=True)

    class NumbersOnly(numpy_pickle.NumpyArrayWrapper):  # type: ignore[misc]  # joblib has no types
        def __setstate__(self, state: Any) -> None:
            kind, shape = state["dtype"], state["shape"]
            if not isinstance(kind, _Type) or state["order"] not in ("C", "F"):
                raise pickle.UnpicklingError(_NO_ARRAY)
            if not 0 <= math.prod(shape) * kind.plain.itemsize <= len(content):
                raise pickle.UnpicklingError(f"is shorter than its array of shape {shape}")
            self.__dict__ = {**state, "dtype": kind.plain, "subclass": np.ndarray}

    class JoblibArrays(numpy_pickle.NumpyUnpickler):  # type: ignore[misc]  # nor here
        def find_class(self, module: str, name: str) -> Any:
            return NumbersOnly if (module, name) == _WRAPPER else _allowed(module, name)

    array = _settled(JoblibArrays(str(path), io.BytesIO(content), True).load())
    if not isinstance(array, np.ndarray):
        raise pickle.UnpicklingError("holds no array")
    return array
