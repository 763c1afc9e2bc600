"""Functions that several benchmarks use."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flexhpc.store.status import PointStatus

FLEXHPC = str(Path(sys.executable).with_name("flexhpc"))


def statuses_of(run: Path) -> list[PointStatus]:
    """Read the status of all points of a run.

    Raises:
        InputError: the path is not a run folder.
    """
    # Not imported at the top of this module, because bench.speed.startup measures imports.
    from flexhpc.store.status import StatusReader, open_run

    folder, _, points = open_run(run)
    return StatusReader(folder, points).read()


def markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def markdown_head(columns: Sequence[str]) -> str:
    """Format the first two lines of a Markdown table."""
    return f"{markdown_row(columns)}\n|{'---|' * len(columns)}"


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table; an empty cell contains a dash."""
    lines = [columns, ["---"] * len(columns), *rows]
    return [markdown_row([cell or "-" for cell in line]) for line in lines]


def median_text(values: Sequence[float]) -> str:
    """Format the median with the lowest and the highest value: ``1.42 (1.20 to 1.71)``."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
