"""Replace files atomically, lock files, and read regular files."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock

_MAX_STATE_BYTES = 2**28
_CHECKS_UNTIL_REMOVED = 3


@contextlib.contextmanager
def atomic_replacement(
    path: Path,
    *,
    durable: bool = True,
    is_permitted: Callable[[], bool] = lambda: True,
    create_folder: bool = True,
) -> Iterator[Path]:
    """Yield a temporary path; after the ``with`` block, atomically rename the file to ``path``.

    If the ``with`` block raises an exception, the existing file is unchanged.

    Args:
        durable: whether to call fsync on the file and its folder, so that the new file survives a
            power failure.
        is_permitted: called immediately before the final rename; if it returns False, the file is
            not replaced.
        create_folder: whether to create the parent folder if it is missing; if False, a missing
            parent folder raises OSError.

    Raises:
        OSError: the disk is full, the folder is not writable, or ``path`` exists and is not a
            regular file.
    """
    if create_folder:
        path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():
        raise OSError(errno.EEXIST, "is not a regular file, so it is not replaced", str(path))
    process = f"{socket.gethostname()}.{pid_namespace()}.{os.getpid()}"  # unique over all hosts
    part = path.with_name(f".{path.name}.{process}.part")
    try:
        yield part
        if durable:
            with part.open("rb+") as written:
                os.fsync(written.fileno())
        if is_permitted():
            part.replace(path)
            if durable:
                _sync_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Call fsync on a folder, so that renames in it survive a power failure; ignore errors."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_atomic(
    path: Path, content: str | bytes, *, durable: bool = True, create_folder: bool = True
) -> None:
    """Write a file atomically; see :func:`atomic_replacement` for the arguments and errors."""
    with atomic_replacement(path, durable=durable, create_folder=create_folder) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, value: Any, **options: bool) -> None:
    """Write a JSON file atomically; see :func:`write_atomic` for the options and errors."""
    write_atomic(path, json.dumps(value, indent=1) + "\n", **options)


def file_lock(path: Path) -> FileLock:
    """Return a lock on the file ``path``, to use as a context manager.

    Raises:
        FileNotFoundError: the parent folder does not exist, for example because the run was moved.
            This is checked because filelock would otherwise recreate the folder.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path.parent))
    return FileLock(path)


class FolderWatch:
    """Detects that a folder was moved or removed.

    Attributes:
        folder: path of the folder.
        missing_count: number of consecutive checks in which the folder was missing. An I/O error
            resets the number to 0, because the folder may still exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.missing_count = folder, 0

    def check_removed(self) -> bool:
        """Check the folder; return True if it was missing in three or more consecutive checks."""
        try:
            self.folder.stat()
            self.missing_count = 0
        except (FileNotFoundError, NotADirectoryError):
            self.missing_count += 1
        except OSError:
            self.missing_count = 0
        return self.missing_count >= _CHECKS_UNTIL_REMOVED


def open_regular_file(path: Path) -> BinaryIO:
    """Open a regular file for reading in binary mode.

    The file is opened with O_NONBLOCK; otherwise, opening a named pipe would wait for a writer.

    Raises:
        OSError: the file cannot be opened, or is a named pipe, a socket or a device.
    """
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(
            errno.EINVAL, "is not a regular file; replace it with a regular file", str(path)
        )
    return file


def read_regular_file(path: Path, max_bytes: int | None = None) -> bytes:
    """Read a regular file.

    Args:
        max_bytes: maximum size; None for no limit.

    Raises:
        OSError: as for :func:`open_regular_file`, or the file is larger than ``max_bytes``.
    """
    with open_regular_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if max_bytes is not None and size > max_bytes:
            raise OSError(f"{path.name} has {size:,} bytes, more than the limit of {max_bytes:,}")
        return file.read()


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in a file; None if the file is unreadable, larger than 256 MiB, or
    does not contain a JSON object."""
    try:
        value = json.loads(read_regular_file(path, _MAX_STATE_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def pid_namespace() -> int:
    """Return the inode of the PID namespace of this process, or 0 if it cannot be read.

    Containers have separate namespaces, and a process id is unique only within its namespace.
    """
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0
