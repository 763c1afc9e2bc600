"""The checksum of a point's file, in the block before its content that HDF5 leaves to its user.

HDF5 follows whatever a damaged file says: a single flipped bit can send it round in circles, or
hand out other numbers. So a file is read as a whole and compared with its checksum before HDF5
sees it. Layout of the 512 bytes: a line that names the format, the SHA-256 of all that follows
them (32 bytes), zeros.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from flexhpc.atomic import read_plain

SIZE = 512
MOST = 2**30
"""Bytes of the largest file that is read; a point of a million samples has some ten millions."""
_NAME = b"flexhpc sealed point file\n"
_DIGEST = slice(len(_NAME), len(_NAME) + 32)


class CorruptFile(ValueError):
    """The content is not what flexhpc writes; the message says why in words for users."""


def sealed(content: bytes) -> bytes:
    """Return content with the checksum of what follows its first ``SIZE`` bytes in these."""
    rest = content[SIZE:]
    return (_NAME + hashlib.sha256(rest).digest()).ljust(SIZE, b"\0") + rest


def read_sealed(path: Path) -> tuple[bytes, bool]:
    """Return all bytes of a file, and whether they are sealed.

    Raises:
        OSError: it cannot be read, is no plain file, or is too large for what it should be.
        CorruptFile: the content does not match its checksum.
    """
    content = read_plain(path, MOST)
    if not content.startswith(_NAME):
        return content, False
    if hashlib.sha256(memoryview(content)[SIZE:]).digest() != content[_DIGEST]:
        raise CorruptFile("checksum mismatch: damaged, or changed by another program")
    return content, True
