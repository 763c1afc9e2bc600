"""How true the live table's time left is, on finished sweeps that are played again.

python -m bench.forecast                            # the sweeps of docs/findings.md
python -m bench.forecast runs/quickstart runs/vit_width --workers 4

Each sweep is played with so many workers that take its points in their order, each training for as
long as it took, or for as long as its sample passes take on a machine that does nothing else. At
evenly spaced moments after a third of the time, the table says how long the rest will take, and in
which range that is believed to lie four times in five. The same for each seed's points alone, as a
small sweep.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.findings.page import RECORDS
from bench.findings.records import cell_of, kept
from flexhpc.launch.forecast import Forecast, Pace, between
from flexhpc.store.record import PointRecord
from flexhpc.store.status import PointStatus, StatusReader, open_run

Floats = NDArray[np.float64]
_LOOKS = 60
_AFTER = 1 / 3


@dataclass(frozen=True)
class Stretch:
    """A point's time in a sweep that is played: its worker has it from ``begun`` on, seconds."""

    status: PointStatus
    begun: float

    @property
    def ended(self) -> float:
        """When its last training ends."""
        return self.begun + sum(_seconds(self.status))

    def at(self, now: float) -> PointStatus:
        """Return what the table would know of it then."""
        bare = PointStatus(point=self.status.point, state="waiting")
        if now <= self.begun:
            return bare
        if now >= self.ended:
            return self.status
        ends = self.begun + np.cumsum(_seconds(self.status))
        count = int((ends <= now).sum())
        progress = {"elapsed": now - (ends[count - 1] if count else self.begun)}
        record = _record(self.status)
        so_far = replace(record, probes=record.probes[:count], estimate=None)
        return replace(bare, state="running", record=so_far, progress=progress)


def _record(status: PointStatus) -> PointRecord:
    if status.record is None:
        raise SystemExit(f"{status.point.label} is not measured yet")
    return status.record


def _seconds(status: PointStatus) -> list[float]:
    return [probe.seconds for probe in _record(status).probes]


def undisturbed(statuses: Sequence[PointStatus]) -> list[PointStatus]:
    """Give each training the time of its sample passes, at the median rate of its point's seeds."""
    rates = defaultdict(list)
    for status in statuses:
        passes = sum(probe.cost for probe in _record(status).probes)
        rates[cell_of(status.point)].append(sum(_seconds(status)) / passes)
    quiet = []
    for status in statuses:
        rate, record = statistics.median(rates[cell_of(status.point)]), _record(status)
        probes = [replace(probe, seconds=probe.cost * rate) for probe in record.probes]
        quiet.append(replace(status, record=replace(record, probes=probes)))
    return quiet


def by_seed(statuses: Sequence[PointStatus]) -> list[list[PointStatus]]:
    """Return the points of each seed."""
    groups = defaultdict(list)
    for status in statuses:
        groups[status.point.swept.get("seed")].append(status)
    return list(groups.values())


def played(statuses: Sequence[PointStatus], workers: int) -> list[Stretch]:
    """Give each point, in order, to the worker that is free first."""
    free = np.zeros(workers)
    stretches = []
    for status in statuses:
        first = int(free.argmin())
        stretches.append(Stretch(status, float(free[first])))
        free[first] = stretches[-1].ended
    return stretches


def looks(stretches: Sequence[Stretch]) -> Floats:
    """Return what was true, and what was told: middle, low and high; (looks, 4), seconds."""
    end = max(stretch.ended for stretch in stretches)
    now = 0.0
    pace = Pace(lambda: now)
    told = []
    for now in end * np.arange(1, _LOOKS) / _LOOKS:
        statuses = [stretch.at(now) for stretch in stretches]
        forecast = Forecast.of(statuses)
        left = pace.seconds_left(statuses, forecast) if forecast else None
        if left is not None and now > _AFTER * end:
            told.append((end - now, float(np.median(left)), *between(left)))
    return np.array(told)


@dataclass(frozen=True)
class Truth:
    """How true what was told is: the parts of looks within a factor of 1.5, and in the range.

    ``width`` is the median of the range's end over its beginning.
    """

    close: float
    held: float
    width: float

    @classmethod
    def of(cls, sweeps: Sequence[Sequence[PointStatus]], workers: int) -> Truth:
        """Play sweeps, and weigh all looks the same."""
        true, middle, low, high = np.concatenate([looks(played(s, workers)) for s in sweeps]).T
        return cls(
            close=float((np.abs(np.log(middle / true)) < np.log(1.5)).mean()),
            held=float(((low <= true) & (true <= high)).mean()),
            width=float(np.median(high / low)),
        )


def _sweeps(runs: Sequence[Path]) -> Mapping[str, list[PointStatus]]:
    if not runs:
        with tempfile.TemporaryDirectory() as scratch:
            return {
                path.name.split(".")[0]: kept(path, Path(scratch))[0]
                for path in sorted(RECORDS.iterdir())
            }
    sweeps = {}
    for run in runs:
        opened, _, points = open_run(run)
        sweeps[opened.name] = StatusReader(opened, points).read()
    return sweeps


def main() -> None:
    """Print four lines for each sweep."""
    parser = argparse.ArgumentParser(description="How true the live table's time left is.")
    parser.add_argument("runs", type=Path, nargs="*")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    print("| sweep | trainings take | points | within 1.5 | in the range | its end / beginning |")
    print("|---|---|---|---|---|---|")
    for name, recorded in _sweeps(arguments.runs).items():
        for what, statuses in (("as recorded", recorded), ("undisturbed", undisturbed(recorded))):
            seeds = by_seed(statuses)
            for some, count in (([statuses], len(statuses)), (seeds, len(seeds[0]))):
                truth = Truth.of(some, arguments.workers)
                print(
                    f"| {name} | {what} | {count} | {truth.close:.0%} | {truth.held:.0%} "
                    f"| {truth.width:.1f} |"
                )


if __name__ == "__main__":
    main()
