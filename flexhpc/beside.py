"""Where a process writes what will replace a file."""

from __future__ import annotations

import os
import socket
from functools import lru_cache
from pathlib import Path


def part_of(path: Path) -> Path:
    """Return a name beside ``path`` that no other process uses, on whatever host it runs."""
    mine = f"{socket.gethostname()}.{pid_namespace()}.{os.getpid()}"
    return path.with_name(f".{path.name}.{mine}.part")


@lru_cache(maxsize=1)
def pid_namespace() -> int:
    """Return what tells containers on one host apart: process 1 is another one in each."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0
