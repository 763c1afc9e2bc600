"""Measure the overhead of a sweep of points of about a second, with one worker and with two.

Usage: python -m bench.speed.sweeps [--rounds 3] [--points 40] [--tracking none]
Runs ``flexhpc sweep`` with MLflow (or none) and the report. Prints the total time of the training
runs (seconds); the fraction of the time from a worker's first to its last training run in which it
does not train; the times to the end of the last training run and of the command, each divided by
the training time per worker; and the speedup by two workers. Values are medians over rounds in
which one and two workers take turns; a round takes one minute with the default points.
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

from flexhpc.store import read_claim, read_point_file
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
    """Times of a sweep, in seconds.

    Attributes:
        trainings: sum over all training runs.
        between: time without training from the first to the last training run, over all workers.
        last: from the start of the command to the end of the last training run.
        whole: run time of the command.
    """

    trainings: float
    between: float
    last: float
    whole: float

    @property
    def at_work(self) -> float:
        """Time from the first to the last training run, over all workers."""
        return self.trainings + self.between


def swept(points: int, workers: int, tracking: str) -> Swept:
    """Run a sweep and return its times."""
    with tempfile.TemporaryDirectory() as folder:
        spec, profile = Path(folder, "many.yaml"), Path(folder, "profile.yaml")
        spec.write_text(
            yaml.safe_dump({"name": "many", "fixed": FIXED, "grid": {"seed": list(range(points))}})
        )
        tracked = f"tracking_uri: {tracking}\n" if tracking else ""
        profile.write_text(f"cluster: local\nworkers: {workers}\n{tracked}")
        command = [str(Path(sys.executable).with_name("flexhpc")), "sweep", str(spec)]
        more = ["--profile", str(profile), "--runs", folder]
        start = time.time()
        subprocess.run([*command, *more], check=True, capture_output=True)
        ended = time.time()
        run, _, measured = open_run(Path(folder, "many"))
        by_worker: dict[str, list[ProbeSummary]] = defaultdict(list)
        for point in measured:
            record, claim = read_point_file(run.point(point.id)), read_claim(run.claim(point.id))
            assert record is not None
            assert claim is not None
            by_worker[claim.log] += record.probes
        trainings = sum(probe.seconds for probes in by_worker.values() for probe in probes)
        at_work = sum(
            max(probe.finished for probe in probes)
            - min(probe.finished - probe.seconds for probe in probes)
            for probes in by_worker.values()
        )
        last = max(probe.finished for probes in by_worker.values() for probe in probes)
        return Swept(trainings, at_work - trainings, last - start, ended - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--points", type=int, default=40)
    parser.add_argument("--tracking", default="", help="none, or a URI; default: a database")
    options = parser.parse_args()
    turns = [
        {n: swept(options.points, n, options.tracking) for n in WORKERS}
        for _ in range(options.rounds)
    ]
    print(
        "| workers | training runs, s | between training runs | last training, relative "
        "| command, relative |"
    )
    print("|---|---|---|---|---|")
    for workers in WORKERS:
        sweeps = [turn[workers] for turn in turns]
        between = statistics.median(s.between / s.at_work for s in sweeps)
        last = statistics.median(workers * s.last / s.trainings for s in sweeps)
        whole = statistics.median(workers * s.whole / s.trainings for s in sweeps)
        trainings = statistics.median(s.trainings for s in sweeps)
        print(f"| {workers} | {trainings:.0f} | {between:.1%} | {last:.2f} | {whole:.2f} |")
    one, two = WORKERS
    times = [turn[one].last / turn[two].last for turn in turns]
    paces = [two * turn[one].at_work / turn[two].at_work for turn in turns]
    print(
        f"Two workers are {statistics.median(times):.2f} times as fast as one including the start, "
        f"{statistics.median(paces):.2f} times from their first training to their last."
    )


if __name__ == "__main__":
    main()
