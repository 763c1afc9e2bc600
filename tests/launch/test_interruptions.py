"""Sweeps that are killed, interrupted, cancelled or started twice: nothing is lost or repeated."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import psutil
import pytest

from flexhpc.store import read
from flexhpc.store.status import StatusReader, open_run
from tests.barrier import Barrier, alive, wait_for
from tests.command import succeeded
from tests.conftest import FULL, Cli
from tests.sweeps import GATED, contents, finish, probes_in, running, start

PASSES = 20
"""Forward passes after which a first probe has finished some epochs and is far from its end."""
TWO = "workers: 2\n"


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(GATED)
    return path


@pytest.fixture
def barrier(tmp_path: Path) -> Barrier:
    return Barrier(tmp_path)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "small"


@pytest.fixture(scope="module")
def undisturbed_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    Barrier(folder)
    (folder / "small.yaml").write_text(GATED)
    (folder / "profile.yaml").write_text("tracking_uri: none\n")
    succeeded(folder, "sweep", "small.yaml", "--profile", "profile.yaml")
    return folder / "runs" / "small"


@pytest.fixture(scope="module")
def undisturbed(undisturbed_run: Path) -> dict[str, object]:
    return contents(undisturbed_run)


def ended(sweep: subprocess.Popen[str], status: int = 0) -> str:
    """Wait for a sweep to exit with a status; return its output without line breaks."""
    output = " ".join(finish(sweep).split())
    assert sweep.returncode == status, output
    return output


@pytest.mark.parametrize("target", ["sweep", "everything"])
def test_killed_again_and_again(
    target: str, spec: Path, run: Path, barrier: Barrier, undisturbed_run: Path
) -> None:
    """SIGKILL after random numbers of updates; the same command ends like an undisturbed run."""
    rounds = 4 if FULL else 2
    folder, _, points = open_run(undisturbed_run)
    updates = min(sum(p.steps for p in read(folder.point(one.id)).probes) for one in points)
    rng = np.random.default_rng(1 if target == "sweep" else 2)
    stored: set[tuple] = set()
    for _ in range(rounds):
        barrier.hold(int(rng.integers(1, updates // rounds)))
        sweep = start(spec, keys=f"{TWO}checkpoint_every: 0.05\n")
        barrier.wait(sweep=sweep)
        if target == "sweep":
            os.kill(sweep.pid, signal.SIGKILL)
            barrier.creep()
        else:
            os.killpg(sweep.pid, signal.SIGKILL)
            for pid in barrier.waiting():
                os.kill(pid, signal.SIGKILL)
            barrier.creep()
        finish(sweep)
        wait_for(lambda: not running(run), "the end of the workers")
        now = probes_in(run)
        assert stored <= now, "a finished probe was lost"
        stored = now
    barrier.open()
    ended(start(spec, keys=TWO))
    assert stored <= probes_in(run), "a finished probe was repeated"
    assert contents(run) == contents(undisturbed_run)


def test_a_moved_run_folder_ends_the_sweep_with_one_message(
    spec: Path, run: Path, barrier: Barrier, tmp_path: Path, undisturbed: dict[str, object]
) -> None:
    """The folder is not recreated; with it back in its place the same command resumes."""
    elsewhere = tmp_path / "elsewhere" / "small"
    elsewhere.parent.mkdir()
    barrier.hold(PASSES)
    sweep = start(spec, tracking=True, keys=TWO)
    barrier.wait(2, sweep)
    run.rename(elsewhere)
    barrier.creep()
    output = ended(sweep, 1)
    assert "small was moved or removed during the sweep" in output
    assert "Traceback" not in output
    wait_for(lambda: not running(elsewhere), "the end of the workers")
    assert not run.exists(), list(run.rglob("*"))
    elsewhere.rename(run)
    barrier.open()
    ended(start(spec, keys=TWO))
    assert contents(run) == undisturbed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_sweep_saves_its_probes_and_resumes(
    number: signal.Signals, spec: Path, run: Path, barrier: Barrier, undisturbed: dict[str, object]
) -> None:
    barrier.hold(PASSES)
    sweep = start(spec, keys=TWO)
    barrier.wait(2, sweep)
    os.killpg(sweep.pid, number)
    barrier.creep()
    output = ended(sweep, 130)
    assert "the same command resumes" in output
    assert len(list(run.rglob("*.ckpt"))) == 2, "a probe in progress was not saved"
    folder, _, points = open_run(run)
    assert [s.state for s in StatusReader(folder, points).read()] == ["stopped", "stopped"]
    barrier.open()
    ended(start(spec, keys=TWO))
    assert contents(run) == undisturbed


def test_two_sweeps_at_once_measure_every_point_once(
    spec: Path, run: Path, barrier: Barrier, tmp_path: Path, undisturbed: dict[str, object]
) -> None:
    """Each sweep has a worker; the training runs wait until both sweeps have started."""
    barrier.hold(PASSES)
    sweeps = [start(spec, tracking=True, keys="workers: 1\n") for _ in range(2)]
    barrier.wait(2, sweeps[0])
    barrier.open()
    outputs = [finish(sweep) for sweep in sweeps]
    assert [sweep.returncode for sweep in sweeps] == [0, 0], outputs
    assert contents(run) == undisturbed
    from flexhpc.tracking.quiet import mlflow_client

    client = mlflow_client(f"sqlite:///{tmp_path}/runs/small/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name == "small"]
    logged = client.search_runs([experiment.experiment_id], max_results=1000)
    tags = [run.data.tags.get("flexhpc.probe", run.data.tags["flexhpc.point_id"]) for run in logged]
    assert len(tags) == len(set(tags))


def test_detached_workers_can_be_cancelled(
    spec: Path, run: Path, barrier: Barrier, cli: Cli, untracked: Path,
    undisturbed: dict[str, object],
) -> None:  # fmt: skip
    barrier.hold(PASSES)
    output = cli("sweep", spec, "--profile", untracked, "--detach").stdout
    assert "workers started" in output
    barrier.wait()
    wait_for(lambda: any(s.progress.get("epoch") for s in running(run)), "progress in the claim")
    status = json.loads(cli("status", run, "--json").stdout)
    assert sorted(row["state"] for row in status) == ["running", "waiting"]
    barrier.creep()
    assert "points stopped" in cli("cancel", run).stdout
    assert not running(run)
    assert list(run.rglob("*.ckpt"))
    barrier.open()
    cli("sweep", spec, "--profile", untracked)
    assert contents(run) == undisturbed


def test_a_sweep_in_the_foreground_can_be_cancelled(
    spec: Path, run: Path, barrier: Barrier, cli: Cli, undisturbed: dict[str, object]
) -> None:
    barrier.hold(PASSES)
    sweep = start(spec, keys=TWO)
    barrier.wait(2, sweep)
    barrier.creep()
    cli("cancel", run)
    ended(sweep, 130)
    barrier.open()
    ended(start(spec, keys=TWO))
    assert contents(run) == undisturbed


@pytest.mark.parametrize("ranks", [1, 2])
def test_killed_workers_use_up_retries(
    ranks: int, tmp_path: Path, run: Path, barrier: Barrier
) -> None:
    """Kill every worker, or its peer, in the first probe of the first point: only that fails."""
    spec = tmp_path / "small.yaml"
    spec.write_text(GATED.replace("[10, 14]", "[10, 4]"))
    sweep = start(spec, keys=f"workers: 1\nretries: 1\nprocesses_per_node: {ranks}\n")
    for _ in range(2):
        barrier.hold(PASSES)
        workers = barrier.wait(ranks, sweep)
        os.kill(max(workers), signal.SIGKILL)
        barrier.creep()  # or its peer would not notice
        wait_for(lambda pids=workers: not any(map(alive, pids)), "the end of a worker")
    barrier.open()
    output = ended(sweep, 1)
    assert "its worker died 2 times" in output
    folder, _, points = open_run(run)
    assert [s.state for s in StatusReader(folder, points).read()] == ["failed", "done"]


def children(pid: int, module: str) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(pid).children():
        with contextlib.suppress(psutil.Error):  # it ends just now
            if module in child.cmdline():
                found.append(child)
    return found


def test_a_killed_fork_server_costs_nothing(
    spec: Path, run: Path, barrier: Barrier, undisturbed: dict[str, object]
) -> None:
    """Its two workers go on without it, and the sweep sees them end."""
    barrier.hold(PASSES)
    sweep = start(spec, keys=TWO)
    barrier.wait(2, sweep)
    (server,) = children(sweep.pid, "flexhpc.worker.fork_server")
    assert len(server.children()) == 2
    server.kill()
    barrier.open()
    ended(sweep)
    assert contents(run) == undisturbed
    assert len(list(run.glob("jobs/*/worker-*_0_log.err"))) == 2, "others were started"


def test_a_killed_mlflow_writer_is_reported(
    spec: Path, run: Path, barrier: Barrier, cli: Cli, undisturbed: dict[str, object]
) -> None:
    """Training goes on; `flexhpc sync` logs what is missing."""
    barrier.hold(PASSES)
    sweep = start(spec, tracking=True, keys=TWO)
    barrier.wait(2, sweep)
    (writer,) = children(sweep.pid, "flexhpc.tracking.follow")
    writer.kill()
    barrier.open()
    output = ended(sweep)
    assert "warning: the MLflow process died (-9)" in output
    assert contents(run) == undisturbed
    assert f"{len(probes_in(run))} probes" in cli("sync", run).stdout
