"""Compressed files, which may be far larger inside: read whole, up to a bound."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

from flexhpc.atomic import read_plain

MOST_BYTES = 2**30
"""Of a file that is read whole, also unpacked: far more than any data set that comes as one."""
_GZIP, _ZLIB = b"\x1f\x8b", b"\x78"


def read_unpacked(path: Path, *, also_zlib: bool = False) -> bytes:
    """Return the content of a plain file; what gzip packed is unpacked.

    Args:
        path: of the file; also_zlib: whether what zlib packed is unpacked as well.

    Raises:
        OSError: it cannot be read, is no plain file, or is larger than a gigabyte.
        ValueError: it is damaged, cut short, or larger than a gigabyte once unpacked.
    """
    content = read_plain(path, MOST_BYTES)
    if content.startswith(_GZIP):
        return _unpacked(content, 16 + zlib.MAX_WBITS)
    return _unpacked(content, zlib.MAX_WBITS) if also_zlib and content[:1] == _ZLIB else content


def _unpacked(content: bytes, window: int) -> bytes:
    parts, left = [], MOST_BYTES
    while content:  # gzip's files may be several, one after the other
        reader = zlib.decompressobj(window)
        try:
            parts.append(reader.decompress(content, left + 1))
        except zlib.error as error:
            raise ValueError(str(error)) from None
        left -= len(parts[-1])
        if left < 0:
            raise ValueError("is larger than a gigabyte once unpacked")
        if not reader.eof:
            raise ValueError("is cut short")
        content = reader.unused_data.lstrip(b"\0")
    return b"".join(parts)


def plain_text(path: Path) -> Path | io.BytesIO:
    """Return what pandas is to read for a table: the file, or what gzip packed there."""
    with path.open("rb") as file:
        packed = file.read(len(_GZIP)) == _GZIP
    return io.BytesIO(read_unpacked(path)) if packed else path
