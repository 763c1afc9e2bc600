"""Stop what a run has running, wherever it runs."""

from __future__ import annotations

import time
from pathlib import Path

from flexhpc.analysis.board import Board, open_run

_WITHIN = 60.0


def cancel_run(path: Path) -> tuple[str, bool]:
    """Ask every launch of a run to stop, and wait until no point is being measured.

    Returns:
        One line that says what came of it, and whether nothing is being measured any more.
    """
    run, _, points = open_run(path)
    board = Board(run, points)
    before = sum(status.state == "running" for status in board.look())
    for folder in run.jobs.glob("*/"):
        (folder / "stop").touch()
    end = time.monotonic() + _WITHIN
    running = before
    while running and time.monotonic() < end:
        time.sleep(0.3)
        running = sum(status.state == "running" for status in board.look())
    if running:
        said = f"asked to stop, but {running} points are still measured after {_WITHIN:.0f} s"
        return said, False
    return f"{before} points stopped; every finished probe is kept", True
