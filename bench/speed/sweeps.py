"""What a sweep adds to its trainings: points of about a second, with one worker and with two.

Usage: python -m bench.speed.sweeps [--rounds 3] [--points 40] [--tracking none]
``flexhpc sweep`` with MLflow (or none) and the report. Told are the seconds of all trainings, how
long after the command began the last of them was done and the command was, each over the trainings'
seconds per worker, and how many times as quick two workers are as one. Medians over rounds in which
the two take turns; with the default points a minute a round.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from flexhpc.store import read
from flexhpc.store.status import open_run

WORKERS = (1, 2)
FIXED = {
    "data": {"source": "digits", "labels": "random"},
    "model": {"family": "mlp", "width": 8, "depth": 1},
    "training": {"optimizer": "adam", "lr": 1.0e-2, "batch_size": 64, "epochs": 340},
    "search": {"policy": "bisection", "start": 16, "tolerance": 0.1},
}


def swept(points: int, workers: int, tracking: str = "") -> tuple[float, float, float]:
    """Return seconds of all trainings, until the last was done, and until the command was."""
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
        records = [record for point in measured if (record := read(run.point(point.id)))]
        assert len(records) == points
        probes = [probe for record in records for probe in record.probes]
        last = max(probe.finished for probe in probes)
        return sum(probe.seconds for probe in probes), last - began, ended - began


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
        "| workers | trainings, s | last one done over s per worker | command over s per worker |"
    )
    print("|---|---|---|---|")
    for workers in WORKERS:
        some = [turn[workers] for turn in turns]
        shares = [[workers * times[i] / times[0] for times in some] for i in (1, 2)]
        cells = [f"{statistics.median(one):.2f}" for one in shares]
        print(f"| {workers} | {statistics.median(t[0] for t in some):.0f} | {' | '.join(cells)} |")
    one, two = WORKERS
    times = [turn[one][1] / turn[two][1] for turn in turns]
    print(f"Two workers are {statistics.median(times):.2f} times as quick as one.")


if __name__ == "__main__":
    main()
