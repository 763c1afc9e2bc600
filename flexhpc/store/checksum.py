"""Checksum of a point file, stored in the HDF5 user block.

HDF5 does not validate its input: a single flipped bit can cause an endless loop or wrong values.
Therefore a file is read completely and its checksum is verified before HDF5 parses it. Layout of
the user block (512 bytes): a line that identifies the format, the SHA-256 of everything after the
block (32 bytes), zero padding.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from flexhpc.atomic import read_regular_file

USER_BLOCK_SIZE = 512
MAX_BYTES = 2**30
"""Maximum size of a file that is read (bytes). A point file for a training set of 1 million samples
takes about 10 MB."""
_NAME = b"flexhpc sealed point file\n"
_DIGEST = slice(len(_NAME), len(_NAME) + 32)


class CorruptFile(ValueError):
    """Raised if a file was not written by flexhpc or was changed later; users see the message."""


def add_checksum(content: bytes) -> bytes:
    """Return ``content`` with a user block that contains the checksum of everything after it."""
    payload = content[USER_BLOCK_SIZE:]
    return (_NAME + hashlib.sha256(payload).digest()).ljust(USER_BLOCK_SIZE, b"\0") + payload


def read_verified(path: Path) -> bytes:
    """Read a file and verify its checksum.

    Raises:
        OSError: the file cannot be read, is not a regular file, or is larger than ``MAX_BYTES``.
        CorruptFile: the file contains no checksum, or its content does not match the checksum.
    """
    content = read_regular_file(path, MAX_BYTES)
    if not content.startswith(_NAME):
        raise CorruptFile("not a point file" if content else "empty file")
    if hashlib.sha256(memoryview(content)[USER_BLOCK_SIZE:]).digest() != content[_DIGEST]:
        raise CorruptFile("checksum mismatch: the file is damaged, or another program changed it")
    return content
