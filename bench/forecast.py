"""How true the live table's time left is, on finished sweeps that are played again.

python -m bench.forecast                            # the sweeps of docs/findings.md
python -m bench.forecast runs/quickstart runs/vit_width --workers 4

Each sweep is played with so many workers, which take its points as workers do: in their order, and
the last ones by how long they seem to take. Each training takes as long as it took, or as long as
its sample passes take on a machine that does nothing else. At evenly spaced moments after a third
of the time, the table says how long the rest will take, and in which range that is believed to lie
four times in five. The same for each seed's points alone, as a small sweep. A second table: how
long the whole takes, over the trainings' time per worker, with 2, 4 and 8 workers, and how long it
would if all points were taken in their order.
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
from flexhpc.launch.longest_first import longest_first
from flexhpc.store.record import PointRecord
from flexhpc.store.status import PointState, PointStatus, StatusReader, open_run

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

    def state(self, now: float) -> PointState:
        """Return what the point is then, to whoever began it."""
        return "done" if now >= self.ended else "running"

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


def played(
    statuses: Sequence[PointStatus], workers: int, *, in_order: bool = False
) -> list[Stretch]:
    """Give each point to the worker that is free first, those whose turn it is first."""
    free = np.zeros(workers)
    begun: dict[str, Stretch] = {}
    left = list(statuses)
    while left:
        first = int(free.argmin())
        now = float(free[first])
        ids = [status.point.id for status in left]
        turns = [] if in_order else longest_first([_at(s, begun, now) for s in statuses])
        status = left.pop(ids.index(turns[0]) if turns else 0)
        begun[status.point.id] = stretch = Stretch(status, now)
        free[first] = stretch.ended
    return [begun[status.point.id] for status in statuses]


def _at(status: PointStatus, begun: Mapping[str, Stretch], now: float) -> PointStatus:
    stretch = begun.get(status.point.id)
    bare = PointStatus(point=status.point, state="waiting")
    return bare if stretch is None else replace(stretch.at(now), state=stretch.state(now))


def longer(sweeps: Sequence[Sequence[PointStatus]], workers: int, *, in_order: bool) -> float:
    """Return how long sweeps take over their trainings' time per worker, the mean."""
    return statistics.mean(
        workers
        * max(stretch.ended for stretch in played(some, workers, in_order=in_order))
        / sum(sum(_seconds(status)) for status in some)
        for some in sweeps
    )


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
    """Print four lines for each sweep, and six of the second table."""
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
    print("\n| sweep | points | workers | longest first | in order |\n|---|---|---|---|---|")
    for name, recorded in _sweeps(arguments.runs).items():
        quiet = undisturbed(recorded)
        for some in ([quiet], by_seed(quiet)):
            for workers in (2, 4, 8):
                first, order = (longer(some, workers, in_order=way) for way in (False, True))
                print(f"| {name} | {len(some[0])} | {workers} | {first:.2f} | {order:.2f} |")


if __name__ == "__main__":
    main()
