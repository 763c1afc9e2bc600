"""Start sweeps as a user does, and read the results of a run."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import psutil

from flexhpc.store import read_loss_curves, read_masks, read_point_file
from flexhpc.store.status import PointStatus, StatusReader, open_run
from flexhpc.tracking.client import mlflow_client
from flexhpc.tracking.state import local_uri
from tests.barrier import Barrier
from tests.command import flexhpc_output
from tests.conftest import FLEXHPC, SMALL_SPEC

WITH_BARRIER = (
    SMALL_SPEC.replace("family: mlp, width: 8, depth: 1", 'family: "barrier_net:Net"')
    .replace("epochs: 120", "epochs: 100, gates: {plateau: off}")
    .replace("model.width: [4, 8, 12]", "model.kwargs.width: [10, 14]")
)
"""Two points whose training runs wait at a barrier (tests/barrier.py)."""


def results_by_point(run: Path) -> dict[str, object]:
    """Return all results of a run by point: probes, masks and estimate."""
    folder, _, points = open_run(run)
    results: dict[str, object] = {}
    for point in points:
        path = folder.point_file(point.id)
        if point.optional and not path.exists():
            continue
        record, masks = read_point_file(path), read_masks(path)
        assert record is not None
        results[point.id] = (
            [(p.n, p.repeat, p.verdict, p.n_errors, p.cost, p.epochs) for p in record.probes],
            [losses.tobytes() for losses in read_loss_curves(path)],
            masks.subset.tobytes(), masks.fit.tobytes(), record.estimate,
        )  # fmt: skip
    return results


def measure_undisturbed(folder: Path, spec: str) -> Path:
    """Run a sweep without interruptions; return its run folder."""
    folder.mkdir(parents=True, exist_ok=True)
    Barrier(folder)
    (folder / "spec.yaml").write_text(spec)
    (folder / "profile.yaml").write_text("tracking_uri: none\n")
    flexhpc_output(folder, "sweep", "spec.yaml", "--profile", "profile.yaml")
    (run,) = (folder / "runs").iterdir()
    return run


def start_sweep(spec: Path, *, tracking: bool = False, keys: str = "") -> subprocess.Popen[str]:
    """Start a sweep of a spec on this machine; ``keys`` are lines of its profile."""
    profile = spec.with_name("profile.yaml")
    profile.write_text(("cluster: local\n" if tracking else "tracking_uri: none\n") + keys)
    return start_command(spec, profile)


def start_command(
    spec: Path, profile: Path, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start `flexhpc sweep` in the folder of the spec, with these additional variables."""
    return subprocess.Popen(
        [str(FLEXHPC), "sweep", str(spec), "--profile", str(profile)], cwd=spec.parent, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        env={**os.environ, **(environment or {})},
    )  # fmt: skip


def wait_for_sweep(sweep: subprocess.Popen[str], seconds: float = 500.0) -> str:
    """Wait for a sweep, and kill it after a timeout; return its output."""
    try:
        output, _ = sweep.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        sweep.kill()
        output, _ = sweep.communicate()
    return output


def finish_with_status(sweep: subprocess.Popen[str], status: int = 0) -> str:
    """Wait until a sweep exits with a status; return its output."""
    output = wait_for_sweep(sweep)
    assert sweep.returncode == status, output
    return output


def kill_sweep(sweep: subprocess.Popen[str]) -> None:
    """Kill a sweep and all processes that it started, as a crash of the machine does."""
    processes = [psutil.Process(sweep.pid)] if sweep.poll() is None else []
    processes += [child for parent in processes for child in parent.children(recursive=True)]
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    sweep.communicate()


def statuses(run: Path) -> list[PointStatus]:
    folder, _, points = open_run(run)
    return StatusReader(folder, points).read()


def states(run: Path) -> list[str]:
    return [status.state for status in statuses(run)]


def running_points(run: Path) -> list[PointStatus]:
    """Return the statuses of the running points; none before the run folder is written."""
    if not (run / "sweep.yaml").is_file():
        return []
    return [status for status in statuses(run) if status.state == "running"]


def logged_names(run: Path) -> list[str]:
    """Return the id of the point or the name of the probe of each MLflow run of a local run."""
    folder, sweep, _ = open_run(run)
    client = mlflow_client(local_uri(folder))
    experiment = client.get_experiment_by_name(sweep.name)
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    return [run.data.tags.get("flexhpc.probe", run.data.tags["flexhpc.point_id"]) for run in runs]


def probes_in(run: Path) -> set[tuple]:
    """Return (point, n, repeat, arm, time of its end) of all probes.

    The time shows whether a probe was repeated.
    """
    folder, _, points = open_run(run)
    records = {point.id: read_point_file(folder.point_file(point.id)) for point in points}
    return {
        (point_id, p.n, p.repeat, p.arm, p.finished)
        for point_id, record in records.items() if record
        for p in record.probes
    }  # fmt: skip
