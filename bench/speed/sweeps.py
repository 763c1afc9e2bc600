"""What a sweep adds to its trainings: points of about a second, with one worker and with two.

Usage: python -m bench.speed.sweeps [--rounds 3] [--points 40] [--tracking none]
``flexhpc sweep`` with MLflow (or none) and the report. Told are the seconds of all trainings, what
part of the time from a worker's first training to its last was in none, how long after the command
began the last of them was done and the command was, each over the trainings' seconds per worker,
and how many times as quick two workers are as one. Medians over rounds in which the two take turns;
with the default points a minute a round.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import yaml

from flexhpc.store import read, read_claim
from flexhpc.store.record import ProbeSummary
from flexhpc.store.status import open_run

WORKERS = (1, 2)
FIXED = {
    "data": {"source": "digits", "labels": "random"},
    "model": {"family": "mlp", "width": 8, "depth": 1},
    "training": {"optimizer": "adam", "lr": 1.0e-2, "batch_size": 64, "epochs": 340},
    "search": {"policy": "bisection", "start": 16, "tolerance": 0.1},
}


@dataclass(frozen=True)
class Swept:
    """What a sweep took, in seconds.

    Attributes:
        trainings: all of them; between: by workers, from their first training to their last, in
            none; last: from the command to the end of the last; whole: the command.
    """

    trainings: float
    between: float
    last: float
    whole: float

    @property
    def at_work(self) -> float:
        """By workers, from their first training to their last, all of them together."""
        return self.trainings + self.between


def swept(points: int, workers: int, tracking: str = "") -> Swept:
    """Measure points by a command of its own."""
    with tempfile.TemporaryDirectory() as folder:
        spec, profile = Path(folder, "many.yaml"), Path(folder, "profile.yaml")
        spec.write_text(
            yaml.safe_dump({"name": "many", "fixed": FIXED, "grid": {"seed": list(range(points))}})
        )
        tracked = f"tracking_uri: {tracking}\n" if tracking else ""
        profile.write_text(f"cluster: local\nworkers: {workers}\n{tracked}")
        command = [str(Path(sys.executable).with_name("flexhpc")), "sweep", str(spec)]
        more = ["--profile", str(profile), "--runs", folder]
        began = time.time()
        subprocess.run([*command, *more], check=True, capture_output=True)
        ended = time.time()
        run, _, measured = open_run(Path(folder, "many"))
        by_worker: dict[str, list[ProbeSummary]] = defaultdict(list)
        for point in measured:
            record, claim = read(run.point(point.id)), read_claim(run.claim(point.id))
            assert record is not None
            assert claim is not None
            by_worker[claim.log] += record.probes
        trainings = sum(probe.seconds for some in by_worker.values() for probe in some)
        at_work = sum(
            max(probe.finished for probe in some)
            - min(probe.finished - probe.seconds for probe in some)
            for some in by_worker.values()
        )
        last = max(probe.finished for some in by_worker.values() for probe in some)
        return Swept(trainings, at_work - trainings, last - began, ended - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--points", type=int, default=40)
    parser.add_argument("--tracking", default="", help="none, or a server instead of a database")
    given = parser.parse_args()
    turns = [
        {n: swept(given.points, n, given.tracking) for n in WORKERS} for _ in range(given.rounds)
    ]
    print(
        "| workers | trainings, s | between trainings | last one done over s per worker "
        "| command over s per worker |"
    )
    print("|---|---|---|---|---|")
    for workers in WORKERS:
        some = [turn[workers] for turn in turns]
        between = statistics.median(one.between / one.at_work for one in some)
        last = statistics.median(workers * one.last / one.trainings for one in some)
        whole = statistics.median(workers * one.whole / one.trainings for one in some)
        trainings = statistics.median(one.trainings for one in some)
        print(f"| {workers} | {trainings:.0f} | {between:.1%} | {last:.2f} | {whole:.2f} |")
    one, two = WORKERS
    times = [turn[one].last / turn[two].last for turn in turns]
    paces = [two * turn[one].at_work / turn[two].at_work for turn in turns]
    print(
        f"Two workers are {statistics.median(times):.2f} times as quick as one, start and all, and "
        f"{statistics.median(paces):.2f} times from their first training to their last."
    )


if __name__ == "__main__":
    main()
