"""Files that are either the old one or the new one, never a part: the one place that replaces."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import stat
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock

_LARGEST_STATE = 2**28
_LOOKS_UNTIL_GONE = 3


@contextlib.contextmanager
def replacing(
    path: Path,
    *,
    durable: bool = True,
    permitted: Callable[[], bool] = lambda: True,
    makes_folder: bool = True,
) -> Iterator[Path]:
    """Yield the path of a temporary file beside ``path``; it takes its place at the end.

    Whatever goes wrong inside leaves the old file as it was.

    Args:
        path: the file.
        durable: wait until the new one is on the disk, under its name, so that it outlives a power
            failure.
        permitted: asked last of all, when only a rename is left to do; if False nothing changes.
        makes_folder: of the file, where there is none; or else that is an error.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    if makes_folder:
        path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():
        raise OSError(errno.EEXIST, "is no plain file, and is not replaced", str(path))
    part = part_of(path)
    try:
        yield part
        if durable:
            with part.open("rb+") as written:
                os.fsync(written.fileno())
        if permitted():
            part.replace(path)
            if durable:
                _sync_names(path.parent)
    finally:
        part.unlink(missing_ok=True)


def _sync_names(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where its file system can be asked to."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_atomic(
    path: Path, content: str | bytes, *, durable: bool = True, makes_folder: bool = True
) -> None:
    """Write a whole file; see :func:`replacing`."""
    with replacing(path, durable=durable, makes_folder=makes_folder) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, value: Any, **how: bool) -> None:
    """Write JSON; see :func:`replacing`."""
    write_atomic(path, json.dumps(value, indent=1) + "\n", **how)


def locked(path: Path, timeout: float = -1) -> FileLock:
    """Return a lock file to hold, in a folder that is there.

    Args:
        path: of the lock file; timeout: seconds to wait for it, for ever if negative.

    Raises:
        FileNotFoundError: it is not, as the run was moved; filelock would make it anew.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path.parent))
    return FileLock(path, timeout)


class Whereabouts:
    """Tells when a folder that somebody may move is gone: not seen several times in a row.

    Attributes:
        unseen: how often in a row it was not there; a file system that does not answer is no no.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.unseen = folder, 0

    def gone(self) -> bool:
        """Look once more; returns whether it counts as gone."""
        try:
            self.folder.stat()
            self.unseen = 0
        except (FileNotFoundError, NotADirectoryError):
            self.unseen += 1
        except OSError:
            self.unseen = 0
        return self.unseen >= _LOOKS_UNTIL_GONE


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file to read.

    Raises:
        OSError: it cannot be opened, or is a named pipe, a socket or a device. Opening a pipe
            without O_NONBLOCK would block until another process writes to it.
    """
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "is not a regular file; replace it with one", str(path))
    return file


def read_plain(path: Path, most: int | None = None) -> bytes:
    """Return all bytes of a regular file.

    Args:
        path: of the file; most: bytes that it may have.

    Raises:
        OSError: as :func:`open_regular`, or it is larger.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if most is not None and size > most:
            raise OSError(f"{path.name} has {size:,} bytes, more than any such file")
        return file.read()


def read_json(path: Path) -> dict[str, Any] | None:
    """Return a JSON object, or None if there is none (or it is damaged)."""
    try:
        value = json.loads(read_plain(path, _LARGEST_STATE))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def part_of(path: Path) -> Path:
    """Return a name beside ``path`` that no other process uses, on whatever host it runs."""
    process = f"{socket.gethostname()}.{pid_namespace()}.{os.getpid()}"
    return path.with_name(f".{path.name}.{process}.part")


@lru_cache(maxsize=1)
def pid_namespace() -> int:
    """Return what tells containers on one host apart: process 1 is another one in each."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0
