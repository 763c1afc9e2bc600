"""Stop what a run has running, wherever it runs."""

from __future__ import annotations

import time
from pathlib import Path

from flexhpc.analysis.board import Board, open_run

_WITHIN = 60.0


def cancel_run(path: Path) -> str:
    """Ask every launch of a run to stop, and wait until no point is being measured.

    Returns:
        One line that says what came of it.
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
        return f"asked to stop, but {running} points are still being measured after {_WITHIN:.0f} s"
    return f"{before} points stopped; every finished probe is kept"
