"""Whether points that were measured again, with other seeds, agree with the stored records."""

from __future__ import annotations

import math
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path

from bench.findings.records import cell_of, kept
from flexhpc.search import Estimate
from flexhpc.store.status import StatusReader, open_run


def agreement(run: Path, stored: Path) -> list[str]:
    """Return a line for each point of a run: its interval, and the EMCs of its cell in a record.

    A cell are points that differ in their seed only. An interval of 90 % should hold the cell's
    mean for nine points of ten.

    Raises:
        SystemExit: a point of the run is not measured yet.
    """
    with tempfile.TemporaryDirectory() as scratch:
        cells = defaultdict(list)
        for status in kept(stored, Path(scratch))[0]:
            cells[cell_of(status.point)].append(status.estimate)
    opened, _, points = open_run(run)
    lines = []
    for status in StatusReader(opened, points).read():
        if status.estimate is None:
            raise SystemExit(f"{status.point.label} is not measured yet")
        cell = [one for one in cells.get(cell_of(status.point), []) if one is not None]
        lines.append(f"{status.point.label}: {_compared(status.estimate, cell)}")
    return lines


def _compared(again: Estimate, cell: list[Estimate]) -> str:
    said = f"{again.emc} [{again.emc_lo}, {again.emc_hi}]"
    if not cell:
        return f"{said}, of no cell in the record"
    mean = math.exp(statistics.fmean(math.log(one.emc) for one in cell))
    low, high = min(one.emc for one in cell), max(one.emc for one in cell)
    holds = again.emc_lo <= mean and (again.emc_hi is None or mean <= again.emc_hi)
    verdict = "agrees" if holds else "does not hold it"
    return f"{said}, stored {mean:.0f} ({low} to {high} of {len(cell)} seeds): {verdict}"
