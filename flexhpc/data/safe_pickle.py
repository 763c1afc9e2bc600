"""Pickles read by an unpickler that can build plain values and arrays, and nothing else."""

from __future__ import annotations

import gzip
import io
import pickle
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from flexhpc.data.dataset import Array

_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}
_WRAPPER = ("joblib.numpy_pickle", "NumpyArrayWrapper")


def _checked(module: str, name: str) -> str:
    """Return the module to take an allowed name from."""
    if (module, name) not in _ALLOWED:
        raise pickle.UnpicklingError(f"holds {module}.{name}, which is no array")
    return module.replace("numpy.core", "numpy._core")


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return super().find_class(_checked(module, name), name)


def unpickle(path: Path) -> Any:
    """Read a pickle of plain values and arrays; texts of Python 2 are taken as latin-1.

    Raises:
        Exception: of any kind, where the file is damaged or holds anything else.
    """
    return _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="latin1").load()


def read_joblib(path: Path) -> Array:
    """Read the one array of a file that joblib.dump wrote, plain or compressed by zlib or gzip.

    Raises:
        Exception: of any kind, where the file is damaged or holds anything but numbers.
    """
    from joblib import numpy_pickle

    class NumbersOnly(numpy_pickle.NumpyArrayWrapper):  # type: ignore[misc]  # joblib has no types
        def read(self, *arguments: Any) -> Any:
            if self.dtype.hasobject:
                raise pickle.UnpicklingError("holds an array of objects, not of numbers")
            return super().read(*arguments)

    class JoblibArrays(numpy_pickle.NumpyUnpickler):  # type: ignore[misc]  # nor here
        def find_class(self, module: str, name: str) -> Any:
            if (module, name) == _WRAPPER:
                return NumbersOnly
            return super().find_class(_checked(module, name), name)

    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    elif content[:1] == b"\x78":
        content = zlib.decompress(content)
    array = JoblibArrays(str(path), io.BytesIO(content), True).load()
    if not isinstance(array, np.ndarray):
        raise pickle.UnpicklingError("holds no array")
    return array
