"""Sweeps on a real SLURM: arrays, several processes and nodes, points per task, throttle."""

from __future__ import annotations

import itertools
import json
import stat
from datetime import datetime
from pathlib import Path

import pytest

from tests.command import flexhpc_output
from tests.conftest import FULL
from tests.slurm.conftest import Cluster
from tests.sweeps import finish_with_status, results_by_point

QUICK = """\
name: quick
fixed:
  data: {source: digits, labels: random}
  model: {family: mlp, width: 8, depth: 1}
  training: {optimizer: adam, lr: 1e-2, batch_size: 64, epochs: 30, shards: 4}
  search: {policy: bisection, start: 16, tolerance: 0.3}
grid:
"""
WITH_BARRIER = QUICK.replace(
    "family: mlp, width: 8, depth: 1", 'family: "barrier_net:Net"'
).replace("epochs: 30", "epochs: 30, gates: {plateau: off}")
"""``QUICK`` with training runs that wait at a barrier (tests/barrier.py)."""


def write_spec(folder: Path, grid: str, text: str = QUICK) -> Path:
    path = folder / "quick.yaml"
    path.write_text(text + grid)
    return path


def measure_locally(spec: Path) -> dict[str, object]:
    """Run a sweep on this machine; return its results. The name of the file is that of the spec."""
    profile = spec.with_name("local.yaml")
    profile.write_text("tracking_uri: none\n")
    flexhpc_output(spec.parent, "sweep", spec, "--profile", profile, "--runs", "local")
    return results_by_point(spec.parent / "local" / spec.stem)


def submissions(run: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(run.glob("jobs/*/array-*/array.json"))]


def attempts(run: Path) -> list[int]:
    return [json.loads(path.read_text())["attempts"] for path in run.glob("points/*/*.claim.json")]


def max_running(cluster: Cluster, job: str) -> int:
    """Return the largest number of tasks that ran at once, from the accounting."""
    output = cluster.run(
        "sacct", "--noheader", "--parsable2", "--allocations", "--duplicates",
        "--starttime=now-2hours", "--format=Start,End", f"--jobs={job}",
    )  # fmt: skip
    changes = []
    for line in output.splitlines():
        start, end = (datetime.fromisoformat(part) for part in line.split("|"))
        changes += [(start, 1), (end, -1)]
    return max(itertools.accumulate(change for _, change in sorted(changes)))


def test_an_array_with_two_processes_and_two_points_per_task(
    cluster: Cluster, tmp_path: Path
) -> None:
    """The last task has a single point."""
    seeds = list(range(23 if FULL else 5))
    spec = write_spec(tmp_path, f"  seed: {seeds}\n")
    profile = cluster.profile(tmp_path, throttle=2, processes_per_node=2, points_per_task=2)
    finish_with_status(cluster.sweep(spec, profile))
    run = tmp_path / "runs" / "quick"
    measured = results_by_point(run)
    assert len(measured) == len(seeds)
    assert measured == measure_locally(spec)
    (array,) = submissions(run)
    assert array["tasks"] == (len(seeds) + 1) // 2
    assert len(list(run.glob("jobs/*/array-*/*_submitted.pkl"))) == array["tasks"]
    assert max_running(cluster, array["job"]) == 2
    rows = json.loads(cluster.flexhpc(tmp_path, "status", run, "--json").stdout)
    assert {row["state"] for row in rows} == {"done"}
    modes = {stat.S_IMODE(path.stat().st_mode) for path in run.rglob(".secret")}
    assert modes == {0o600}, "other users can read the secret of the job"
    assert not cluster.queue()


def test_a_point_on_two_nodes_with_two_processes_each(cluster: Cluster, tmp_path: Path) -> None:
    spec = write_spec(tmp_path, "  seed: [7]\n")
    profile = cluster.profile(tmp_path, nodes=2, processes_per_node=2, gpus_per_node=2)
    finish_with_status(cluster.sweep(spec, profile))
    run = tmp_path / "runs" / "quick"
    assert results_by_point(run) == measure_locally(spec)
    logs = sorted(path.read_text() for path in run.glob("jobs/*/array-000/*_log.out"))
    assert len(logs) == 4
    assert sum("node=0(2)" in text for text in logs) == 2
    assert sum("node=1(2)" in text for text in logs) == 2
    assert all("global_rank=" in text and "(4)" in text for text in logs)


@pytest.mark.full_budget
def test_a_comparison_is_decided_in_rounds(cluster: Cluster, tmp_path: Path) -> None:
    """A later round is filled up to the throttle with seeds of the round after it."""
    text = QUICK.replace("epochs: 30, shards: 4", "epochs: 20")
    text = text.replace("policy: bisection, start: 16, tolerance: 0.3", "policy: bayes, start: 16")
    grid = (
        "  model.width: [8, 9]\n  seed: [0, 1]\n"
        "compare: {by: model.width, decide: {max_seeds: 4, margin: 0.02}}\n"
    )
    spec = write_spec(tmp_path, grid, text)
    finish_with_status(cluster.sweep(spec, cluster.profile(tmp_path, throttle=4)))
    run = tmp_path / "runs" / "quick"
    measured, local = results_by_point(run), measure_locally(spec)
    assert local.items() <= measured.items(), "the same points to the same precision"
    assert len(measured) in (4, 8), "two seeds more in one round"
    assert sum(attempts(run)) == sum(array["tasks"] for array in submissions(run))
    assert max(attempts(run)) == 2, "points of the grid are refined in a second task"
