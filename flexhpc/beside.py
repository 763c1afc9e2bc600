"""Where a process writes what will replace a file."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def part_of(path: Path) -> Path:
    """Return a name beside ``path`` that no other process uses, on whatever host it runs."""
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.part")
