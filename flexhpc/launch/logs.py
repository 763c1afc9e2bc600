"""The ends of workers' logs, for points that failed."""

from __future__ import annotations

from pathlib import Path

_BLOCK = 64 * 1024


def log_tail(log: Path, lines: int = 12) -> list[str]:
    """Return the last lines of a log; of a folder, of all its workers' errors together."""
    paths = sorted(log.glob("*_log.err")) if log.is_dir() else [log]
    tail: list[str] = []
    for path in paths:
        tail += [line for line in _end(path).splitlines() if line.strip()][-lines:]
    return tail[-lines:]


def _end(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _BLOCK))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
