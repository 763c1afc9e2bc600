"""Measure the overhead of a sweep whose points take about a second, with one and two workers.

Usage: python -m bench.speed.sweep_overhead [--rounds 3] [--points 40] [--tracking none]
Each round runs ``flexhpc sweep`` with the report, once with one worker and once with two, and takes
one minute with the default points. ``--tracking none`` disables MLflow. Prints medians of:
- the total time of the training runs (seconds);
- the fraction of time without training, between a worker's first and last training run;
- the times to the end of the last training run and to the end of the command, each divided by the
  training time per worker;
- the speedup of two workers over one.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import yaml

from bench.common import FLEXHPC, markdown_head, markdown_row
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
class SweepTimes:
    """Times of a sweep, in seconds.

    Attributes:
        trainings: sum over all training runs.
        idle: time without training from the first to the last training run of a worker, summed over
            all workers.
        until_last: from the start of the command to the end of the last training run.
        command: run time of the command.
    """

    trainings: float
    idle: float
    until_last: float
    command: float

    @property
    def busy(self) -> float:
        """Time from the first to the last training run of a worker, summed over all workers."""
        return self.trainings + self.idle


def run_sweep(points: int, workers: int, tracking: str) -> SweepTimes:
    with tempfile.TemporaryDirectory() as folder:
        spec, profile = Path(folder, "many.yaml"), Path(folder, "profile.yaml")
        spec.write_text(
            yaml.safe_dump({"name": "many", "fixed": FIXED, "grid": {"seed": list(range(points))}})
        )
        tracking_key = f"tracking_uri: {tracking}\n" if tracking else ""
        profile.write_text(f"cluster: local\nworkers: {workers}\n{tracking_key}")
        command = [FLEXHPC, "sweep", str(spec), "--profile", str(profile), "--runs", folder]
        start = time.time()
        subprocess.run(command, check=True, capture_output=True)
        end = time.time()
        run, _, run_points = open_run(Path(folder, "many"))
        by_worker: dict[str, list[ProbeSummary]] = defaultdict(list)
        for point in run_points:
            record = read_point_file(run.point_file(point.id))
            claim = read_claim(run.claim_file(point.id))
            assert record is not None
            assert claim is not None
            by_worker[claim.log] += record.probes
        trainings = sum(probe.seconds for probes in by_worker.values() for probe in probes)
        busy = sum(
            max(probe.finished for probe in probes)
            - min(probe.finished - probe.seconds for probe in probes)
            for probes in by_worker.values()
        )
        last_end = max(probe.finished for probes in by_worker.values() for probe in probes)
        return SweepTimes(trainings, busy - trainings, last_end - start, end - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--points", type=int, default=40)
    parser.add_argument("--tracking", default="", help="none or a URI; default: a database")
    options = parser.parse_args()
    rounds = [
        {n: run_sweep(options.points, n, options.tracking) for n in WORKERS}
        for _ in range(options.rounds)
    ]
    columns = ["workers", "training runs, s", "between training runs", "last training, relative"]
    print(markdown_head([*columns, "command, relative"]))
    for workers in WORKERS:
        sweeps = [times[workers] for times in rounds]
        trainings = statistics.median(s.trainings for s in sweeps)
        idle = statistics.median(s.idle / s.busy for s in sweeps)
        last = statistics.median(workers * s.until_last / s.trainings for s in sweeps)
        command = statistics.median(workers * s.command / s.trainings for s in sweeps)
        cells = [str(workers), f"{trainings:.0f}", f"{idle:.1%}", f"{last:.2f}", f"{command:.2f}"]
        print(markdown_row(cells))
    one, two = WORKERS
    with_start = statistics.median(r[one].until_last / r[two].until_last for r in rounds)
    without_start = statistics.median(two * r[one].busy / r[two].busy for r in rounds)
    print(
        f"Speedup of two workers: {with_start:.2f} including the start of the command, "
        f"{without_start:.2f} from the first to the last training run."
    )


if __name__ == "__main__":
    main()
