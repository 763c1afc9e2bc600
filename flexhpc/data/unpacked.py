"""Compressed files, which may be far larger when decompressed: read as a whole, up to a limit."""

from __future__ import annotations

import bz2
import contextlib
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, BinaryIO

import psutil

from flexhpc.atomic import open_regular, read_plain
from flexhpc.errors import PointError

MOST_BYTES = 2**30
"""Maximum size of a file that is read as a whole, also after decompression; far above the size of
any data set distributed as a single file."""
_GZIP, _ZLIB = b"\x1f\x8b", b"\x78"
_TAR, _USTAR = slice(257, 262), b"ustar"


def open_file(path: Path) -> BinaryIO:
    """Open a user's file for reading.

    Raises:
        PointError: the file cannot be opened, or is a named pipe, a socket or a device.
    """
    try:
        return open_regular(path)
    except OSError as error:
        raise PointError(f"{path}: cannot be read: {error.strerror}") from None


def read_unpacked(path: Path, *, also_zlib: bool = False, most: int | None = None) -> bytes:
    """Return the content of a regular file; gzip files are decompressed.

    Args:
        path: the file.
        also_zlib: whether zlib files are decompressed as well.
        most: maximum number of bytes, also after decompression; None for a gigabyte.

    Raises:
        OSError: the file cannot be read, is not a regular file, or is larger.
        ValueError: the file is damaged, truncated, or larger after decompression.
    """
    most = most or MOST_BYTES
    content = read_plain(path, most)
    if content.startswith(_GZIP):
        return _unpacked(content, 16 + zlib.MAX_WBITS, most)
    zipped = also_zlib and content[:1] == _ZLIB
    return _unpacked(content, zlib.MAX_WBITS, most) if zipped else content


def _unpacked(content: bytes, window: int, most: int) -> bytes:
    parts, left = [], most
    while content:  # a gzip file may have several members
        reader = zlib.decompressobj(window)
        try:
            parts.append(reader.decompress(content, left + 1))
        except zlib.error as error:
            raise ValueError(str(error)) from None
        left -= len(parts[-1])
        if left < 0:
            raise _too_large(most)
        if not reader.eof:
            raise ValueError("is cut short")
        content = reader.unused_data.lstrip(b"\0")
    return b"".join(parts)


def _too_large(most: int) -> ValueError:
    bound = "a gigabyte" if most >= MOST_BYTES else f"{most:,} bytes"
    return ValueError(f"is larger than {bound} once unpacked")


def plain_text(path: Path, most: int | None = None) -> Path | io.BytesIO:
    """Return the input for pandas: the file, or its decompressed content.

    Args:
        path: the file.
        most: maximum number of decompressed bytes, None for a gigabyte.

    Raises:
        OSError: the file cannot be read, is not a regular file, or is larger.
        ValueError: the file is damaged, truncated, or larger after decompression.
    """
    most = most or MOST_BYTES
    with open_regular(path) as file:
        start = file.read(_TAR.stop)
    opener = next((how for sign, how in _OPENERS.items() if start.startswith(sign)), None)
    if start.startswith(_GZIP):
        content = read_unpacked(path, most=most)
    elif start[_TAR] == _USTAR:
        content = read_plain(path, most)
    elif opener is None:
        return path
    else:
        try:
            with opener(path) as packed:
                content = packed.read(most + 1)
        except (EOFError, lzma.LZMAError, zipfile.BadZipFile, RuntimeError) as error:
            raise ValueError(str(error)) from None
    if len(content) > most:
        raise _too_large(most)
    return io.BytesIO(_of_tar(content, most) if content[_TAR] == _USTAR else content)


def _of_tar(content: bytes, most: int) -> bytes:
    """Return the only file of a tar archive."""
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            files = [member for member in archive.getmembers() if member.isfile()]
            _check_single(len(files))
            if files[0].size > most:  # a sparse file takes no space
                raise _too_large(most)
            file = archive.extractfile(files[0])
            return b"" if file is None else file.read()
    except tarfile.TarError as error:
        raise ValueError(str(error)) from None


def check_memory(path: Path, archive: zipfile.ZipFile, array: str) -> None:
    """Check that an array of an .npz file fits into memory; zeros compress by a factor of 1,000.

    Raises:
        PointError: the array does not fit.
    """
    sizes = {one.filename.removesuffix(".npy"): one.file_size for one in archive.infolist()}
    size, free = sizes.get(array, 0), psutil.virtual_memory().available
    if size > free:
        raise PointError(
            f"{path}: {array} has {size / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB of memory are "
            "available; save it as .npy, which is mapped, not loaded (data.source: arrays)"
        )


def _check_single(files: int) -> None:
    if files != 1:
        raise ValueError(f"holds {files} files; a table is one")


@contextlib.contextmanager
def _only_member(path: Path) -> Iterator[IO[bytes]]:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        _check_single(len(names))
        with archive.open(names[0]) as file:
            yield file


_OPENERS: Mapping[bytes, Callable[[Path], AbstractContextManager[IO[bytes]]]] = {
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ": lzma.LZMAFile,
    b"PK\x03\x04": _only_member,
}
