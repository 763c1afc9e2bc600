"""Last lines of worker logs, shown for failed points."""

from __future__ import annotations

from pathlib import Path

_BLOCK = 64 * 1024


def log_tail(log: Path, lines: int = 12) -> list[str]:
    """Return the last non-empty lines of a log.

    Args:
        log: stderr log of rank 0 of a job (the logs of the other ranks are included), or a folder
            of logs.
        lines: number of lines, divided equally among the logs, but at least 3 of each log. From a
            folder, at most this number of lines is returned.
    """
    if log.is_dir():
        paths = sorted(log.glob("*_log.err"))
    else:
        paths = sorted(log.parent.glob(log.name.replace("_0_log.err", "_*_log.err"))) or [log]
    lines_each = max(3, lines // max(1, len(paths)))
    tail: list[str] = []
    for path in paths:
        tail += [line for line in _last_block(path).splitlines() if line.strip()][-lines_each:]
    return tail[-lines:] if log.is_dir() else tail


def _last_block(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _BLOCK))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
