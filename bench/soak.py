"""Measure time, memory and files of sweeps of many points, and of commands on their runs.

Usage: python -m bench.soak [--points N ...] [--slurm] [--tracking]
The search of each point has about six probes with a trainer that takes no time, so the result is
the overhead of flexhpc. Prints one row of a Markdown table per number of points.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import psutil

from bench.common import FLEXHPC, markdown_head, markdown_row, statuses_of

TRAINER = """\
import numpy as np

def fit(inputs, labels, seed):
    return np.arange(len(labels)) < 40 + seed % 25
"""
SPEC = """\
name: soak
fixed:
  data: {{source: digits, labels: random, n_max: 200}}
  training: {{trainer: "trivial:fit", epochs: 1}}
  search: {{policy: bisection, start: 32, tolerance: 0.05}}
grid: {{seed: [{seeds}]}}
"""
LOCAL = "workers: 2\n"
SLURM = (Path(__file__).parent.parent / "hpc/profiles/devcluster.yaml").read_text()
SLURM += "points_per_task: 50\n"
ROLES = {
    "flexhpc.worker": "worker", "flexhpc.tracking.periodic_sync": "MLflow",
    "flexhpc.custom.trainer": "trainer", "flexhpc sweep": "sweep",
}  # fmt: skip
MAX_SYNCED = 1_000
"""Largest number of points for which ``flexhpc sync`` is measured."""
COLUMNS = (
    "points", "probes", "seconds", "ms per point", "MB, sweep process", "MB, worker",
    "MB, MLflow process", "status", "results", "report", "pack", "sync", "files", "MB on disk",
)  # fmt: skip


def peak_memory(sweep: subprocess.Popen[bytes]) -> dict[str, float]:
    """Wait for a sweep; return the peak resident memory of its processes (MB), by role.

    The memory of the process and of all its descendants is sampled once a second.
    """
    peaks: dict[str, float] = defaultdict(float)
    while True:
        try:
            sweep.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            for role, megabytes in sample_memory(sweep.pid):
                peaks[role] = max(peaks[role], megabytes)
        else:
            return peaks


def sample_memory(pid: int) -> Iterator[tuple[str, float]]:
    """Yield role and resident memory (MB) of a process and of all its descendants."""
    try:
        root = psutil.Process(pid)
        processes = [root, *root.children(recursive=True)]
    except psutil.Error:
        return
    for process in processes:
        try:
            command = " ".join(process.cmdline())
            megabytes = process.memory_info().rss / 1e6
        except psutil.Error:
            continue
        yield next((role for part, role in ROLES.items() if part in command), "other"), megabytes


def measure_command(folder: Path, *arguments: str) -> str:
    """Run a flexhpc command; return its run time and peak resident memory as text."""
    started = time.monotonic()
    with (folder / "commands.log").open("ab") as log:
        process = subprocess.Popen([FLEXHPC, *arguments], cwd=folder, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, f"{arguments} exited with status {status}; see {folder}/commands.log"
    return f"{time.monotonic() - started:.1f} s, {usage.ru_maxrss / 1e3:.0f} MB"


def measure_sweep(folder: Path, points: int, profile: str) -> tuple[str, ...]:
    """Measure a sweep; return a row of the table, one cell for each of ``COLUMNS``."""
    (folder / "trivial.py").write_text(TRAINER)
    (folder / "soak.yaml").write_text(SPEC.format(seeds=", ".join(map(str, range(points)))))
    (folder / "profile.yaml").write_text(profile)
    started = time.monotonic()
    with (folder / "sweep.log").open("wb") as log:
        sweep = subprocess.Popen(
            [FLEXHPC, "sweep", "soak.yaml", "--profile", "profile.yaml"], cwd=folder,
            stdout=log, stderr=log,
        )  # fmt: skip
        peaks = peak_memory(sweep)
    seconds = time.monotonic() - started
    assert sweep.returncode == 0, (folder / "sweep.log").read_text()[-2000:]
    files = [path for path in (folder / "runs").rglob("*") if path.is_file()]
    commands = [
        measure_command(folder, command, "runs/soak")
        for command in ("status", "results", "report", "pack")
    ]
    sync = "not measured"
    if points <= MAX_SYNCED:
        sync = measure_command(folder, "sync", "runs/soak")
    probes = sum(status.probes for status in statuses_of(folder / "runs" / "soak"))
    return (
        f"{points:,}", f"{probes:,}", f"{seconds:.0f}", f"{1000 * seconds / points:.0f}",
        *(f"{peaks[role]:.0f}" for role in ("sweep", "worker", "MLflow")),
        *commands, sync,
        f"{len(files):,}", f"{sum(path.stat().st_size for path in files) / 1e6:.0f}",
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, nargs="+", default=[100, 1_000, 10_000])
    parser.add_argument("--slurm", action="store_true", help="run on the devcluster")
    parser.add_argument("--tracking", action="store_true", help="log to MLflow")
    arguments = parser.parse_args()
    profile = SLURM if arguments.slurm else LOCAL
    if not arguments.tracking:
        profile += "tracking_uri: none\n"
    print(markdown_head(COLUMNS), flush=True)
    for points in arguments.points:
        with tempfile.TemporaryDirectory(prefix="flexhpc-soak-") as folder:
            print(markdown_row(measure_sweep(Path(folder), points, profile)), flush=True)


if __name__ == "__main__":
    main()
