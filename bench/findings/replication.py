"""Compare a run with the stored records of other seeds."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path

from bench.common import statuses_of
from bench.findings.records import load_records
from flexhpc.config import Point
from flexhpc.search import Estimate


def agreement(run: Path, stored: Path) -> list[str]:
    """Compare each point of a run with the stored points of its cell; return a line per point.

    A cell consists of the points that differ only in their seed. For nine of ten points, the 90 %
    interval should contain the mean EMC of the cell.

    Raises:
        SystemExit: A point of the run is not finished.
    """
    with tempfile.TemporaryDirectory() as scratch:
        cells = defaultdict(list)
        for status in load_records(stored, Path(scratch))[0]:
            cells[_cell_key(status.point)].append(status.estimate)
    lines = []
    for status in statuses_of(run):
        if status.estimate is None:
            raise SystemExit(f"{status.point.label} is not finished")
        cell = [e for e in cells[_cell_key(status.point)] if e is not None]
        lines.append(f"{status.point.label}: {_agreement(status.estimate, cell)}")
    return lines


def _cell_key(point: Point) -> str:
    settings = json.loads(point.canonical)
    settings.pop("seed", None)
    return json.dumps(settings, sort_keys=True)


def _agreement(estimate: Estimate, cell: list[Estimate]) -> str:
    text = f"{estimate.emc} [{estimate.emc_lo}, {estimate.emc_hi}]"
    if not cell:
        return f"{text}, not in the stored records"
    emcs = [stored.emc for stored in cell]
    mean = statistics.geometric_mean(emcs)
    agrees = estimate.emc_lo <= mean and (estimate.emc_hi is None or mean <= estimate.emc_hi)
    verdict = "agrees" if agrees else "mean outside the interval"
    return f"{text}, stored {mean:.0f} ({min(emcs)} to {max(emcs)}, {len(emcs)} seeds): {verdict}"
