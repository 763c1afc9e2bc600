"""Small files that are either the old one or the new one, never a part."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from flexhpc.beside import part_of


def write_atomic(path: Path, content: str | bytes, *, durable: bool = True) -> None:
    """Write a file through a temporary one beside it.

    Args:
        path: the file.
        content: what it will hold.
        durable: wait until it is on the disk, so that it outlives a power failure.

    Raises:
        OSError: the disk is full or the folder cannot be written; the old file is still whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(path)
    data = content.encode() if isinstance(content, str) else content
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """Write JSON atomically; see :func:`write_atomic`."""
    write_atomic(path, json.dumps(value, indent=1) + "\n", durable=durable)


def read_json(path: Path) -> dict[str, Any] | None:
    """Return a JSON object, or None if there is none (or it is damaged)."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
