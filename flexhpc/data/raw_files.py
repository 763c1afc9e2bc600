"""Open and decompress data files up to a maximum size; convert read errors to a PointError."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
import psutil

from flexhpc.atomic import open_regular_file
from flexhpc.data.dataset import Array, rows_per_block
from flexhpc.errors import PointError, one_line_message

MAX_BYTES = 2**30
"""Maximum size in bytes of a file that is read into memory at once, after any decompression."""
_TAR, _USTAR = slice(257, 262), b"ustar"


@contextlib.contextmanager
def convert_read_errors(file: Path | str, kind: str) -> Iterator[None]:
    """Convert exceptions in the ``with`` block to a PointError with a one-line message.

    Libraries raise exceptions of many types if a file is damaged.

    Args:
        file: path or name of the file, which the message contains.
        kind: expected kind of file, with an article: ``an .npz file``.

    Raises:
        PointError: the ``with`` block raised an exception other than MemoryError.
    """
    try:
        yield
    except (PointError, MemoryError):
        raise
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise PointError(
            f"{file}: cannot be read as {kind} ({reason or one_line_message(error)}); check or "
            "replace it"
        ) from None


def open_decompressed(path: Path, max_bytes: int | None = None) -> BinaryIO:
    """Open a file; decompress gzip, bzip2, xz, zip and tar files in memory.

    Args:
        path: the file.
        max_bytes: maximum size in bytes after decompression; None for :data:`MAX_BYTES`.

    Raises:
        Exception: of any type, if the file is damaged, too large, or not a regular file.
    """
    max_bytes = max_bytes or MAX_BYTES
    file = open_regular_file(path)
    start = file.read(_TAR.stop)
    file.seek(0)
    opener = next((opener for magic, opener in _OPENERS.items() if start.startswith(magic)), None)
    if opener is None and start[_TAR] != _USTAR:
        return file
    with file, opener(file) if opener else file as content:
        data = content.read(max_bytes + 1)
    if len(data) <= max_bytes and data[_TAR] == _USTAR:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            member = _single_member([member for member in archive if member.isfile()])
            if member.size > max_bytes:  # a sparse file is small in the archive
                data = bytes(max_bytes + 1)
            elif inner := archive.extractfile(member):
                data = inner.read()
    if len(data) > max_bytes:
        raise ValueError(f"larger than {max_bytes:,} bytes after decompression")
    return io.BytesIO(data)


def _open_zip(file: BinaryIO) -> IO[bytes]:
    archive = zipfile.ZipFile(file)
    return archive.open(_single_member(archive.infolist()))


def _single_member(members: list[Any]) -> Any:
    if len(members) != 1:
        raise ValueError(f"contains {len(members)} files instead of one")
    return members[0]


_OPENERS: dict[bytes, Callable[[BinaryIO], IO[bytes] | gzip.GzipFile]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ": lzma.LZMAFile,
    b"PK\x03\x04": _open_zip,
}


def check_fits_in_memory(path: Path, archive: zipfile.ZipFile, name: str) -> None:
    """Check that an array of an .npz file fits into memory.

    The array can be 1,000 times larger than the file, because the file can be compressed.

    Raises:
        PointError: the array does not fit.
    """
    size, free = archive.getinfo(f"{name}.npy").file_size, psutil.virtual_memory().available
    if size > free:
        raise PointError(
            f"{path}: array {name} ({size / 1e9:,.1f} GB) is larger than the available memory "
            f"({free / 1e9:,.1f} GB); save it as .npy, which is memory-mapped (data.source: arrays)"
        )


def open_array(
    archive: zipfile.ZipFile, name: str
) -> tuple[IO[bytes], tuple[int, ...], np.dtype[Any]]:
    """Open an array of an .npz file without reading its values.

    Returns:
        The file, positioned at the first value, and the shape and dtype of the array.

    Raises:
        Exception: of any type, if the array does not exist, is damaged, is in Fortran order, or is
            not numeric.
    """
    file = archive.open(f"{name}.npy")
    version = np.lib.format.read_magic(file)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, fortran, dtype = read_header(file)
    if fortran or dtype.kind not in "biuf":
        order = "Fortran" if fortran else "C"
        raise ValueError(
            f"array {name} must contain numbers in C order, not {dtype} in {order} order"
        )
    return file, shape, dtype


def read_array_blocks(path: Path, name: str) -> Iterator[Array]:
    """Yield the rows of an array of an .npz file in blocks; the array need not fit into memory.

    Raises:
        Exception: of any type, as for :func:`open_array`, or if the array is truncated.
    """
    with open_regular_file(path) as file, zipfile.ZipFile(file) as archive:
        values, (count, *shape), dtype = open_array(archive, name)
        step = rows_per_block(tuple(shape))
        for start in range(0, count, step):
            rows = min(step, count - start)
            content = values.read(rows * int(np.prod(shape)) * dtype.itemsize)
            yield np.frombuffer(content, dtype).reshape(rows, *shape)
