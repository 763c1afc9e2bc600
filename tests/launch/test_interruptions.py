"""A sweep is killed, stopped, cancelled or started twice: nothing is lost or measured again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from flexhpc.store.status import StatusReader, open_run
from tests.command import succeeded
from tests.conftest import FULL, SMALL, Cli
from tests.faults.site import end
from tests.sweeps import contents, finish, probes_in, running, start, wait_for

LONGER = SMALL.replace("epochs: 120", "epochs: 900, gates: {plateau: off}").replace(
    "model.width: [4, 8, 12]", "model.width: [10, 14]"
)
"""Two points with failing probes of a second or two: time to be killed in."""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """A sweep in a folder of its own."""
    path = tmp_path / "small.yaml"
    path.write_text(LONGER)
    return path


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("undisturbed")
    spec = folder / "small.yaml"
    spec.write_text(LONGER)
    (folder / "profile.yaml").write_text("tracking_uri: none\n")
    succeeded(folder, "sweep", spec, "--profile", "profile.yaml")
    return contents(folder / "runs" / "small")


@pytest.mark.parametrize("whom", ["sweep", "everything"])
def test_kill_nine_again_and_again(
    whom: str, spec: Path, tmp_path: Path, undisturbed: dict[str, object]
) -> None:
    """SIGKILL at random moments of a probe; then the same command ends as if nothing had been."""
    run = tmp_path / "runs" / "small"
    rng = np.random.default_rng(1 if whom == "sweep" else 2)
    stored: set[tuple] = set()
    for _ in range(4 if FULL else 2):
        sweep = start(spec)
        wait_for(lambda one=sweep: running(run) or one.poll() is not None)
        time.sleep(rng.uniform(0, 3))
        if whom == "sweep":
            os.kill(sweep.pid, signal.SIGKILL)
        else:
            os.killpg(sweep.pid, signal.SIGKILL)
        finish(sweep)
        now = probes_in(run)
        assert stored <= now, "a finished probe was lost"
        stored = now
    sweep = start(spec)
    output = finish(sweep)
    assert sweep.returncode == 0, output
    assert contents(run) == undisturbed


ENDLESS = LONGER.replace("epochs: 900", "epochs: 1000000").replace("start: 16", "start: 1000")
"""The first probe of a point does not end by itself."""


def test_a_killed_sweep_goes_on_from_a_checkpoint_no_older_than_asked(
    spec: Path, tmp_path: Path
) -> None:
    """Not from the start, which would take as long as before to come as far."""
    spec.write_text(ENDLESS)
    run = tmp_path / "runs" / "small"
    keys = "workers: 1\ncheckpoint_every: 0.5\n"
    sweep = start(spec, keys=keys)
    wait_for(lambda: list(run.rglob("*.ckpt")))
    (path,) = run.rglob("*.ckpt")
    ages = []
    for _ in range(80):
        time.sleep(0.05)
        ages.append(time.time() - path.stat().st_mtime)
    (killed,) = victims(run)
    end(sweep)
    assert max(ages) < 5.0, "a minute by default"
    saved = torch.load(path, weights_only=True)["progress"]["epoch"]
    sweep = start(spec, keys=keys)
    wait_for(lambda: victims(run) - {killed})
    (status,) = running(run)
    end(sweep)
    assert saved > 100
    assert status.progress["epoch"] > saved / 2, "it shows the last look"


def test_a_run_folder_that_is_moved_away_ends_its_sweep_in_a_line(
    spec: Path, tmp_path: Path, undisturbed: dict[str, object]
) -> None:
    """Nobody makes it anew; once it is back, or where it is now, it goes on."""
    run, elsewhere = tmp_path / "runs" / "small", tmp_path / "elsewhere" / "small"
    elsewhere.parent.mkdir()
    sweep = start(spec, tracking=True)
    wait_for(lambda: any(s.progress.get("epoch", 0) > 20 for s in running(run)))
    run.rename(elsewhere)
    said = " ".join(finish(sweep).split())
    assert sweep.returncode == 1, said
    assert "small was moved or removed while it was measured" in said
    assert "Traceback" not in said
    wait_for(lambda: not running(elsewhere))
    assert not run.exists(), list(run.rglob("*"))
    elsewhere.rename(run)
    again = start(spec)
    output = finish(again)
    assert again.returncode == 0, output
    assert contents(run) == undisturbed


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_the_probe_in_hand_and_the_same_command_resumes(
    how: signal.Signals, spec: Path, tmp_path: Path, undisturbed: dict[str, object]
) -> None:
    run = tmp_path / "runs" / "small"
    sweep = start(spec)
    wait_for(lambda: any(s.progress.get("epoch", 0) > 20 for s in running(run)))
    os.killpg(sweep.pid, how)
    output = finish(sweep)
    assert sweep.returncode == 130, output
    assert "the same command resumes" in output
    assert list(run.rglob("*.ckpt")), "no probe in hand was saved"
    assert not running(run)
    folder, _, points = open_run(run)
    assert {s.state for s in StatusReader(folder, points).read()} <= {"stopped", "waiting", "done"}
    again = start(spec)
    output = finish(again)
    assert again.returncode == 0, output
    assert contents(run) == undisturbed


def test_two_sweeps_at_once_measure_every_point_once(
    spec: Path, tmp_path: Path, undisturbed: dict[str, object]
) -> None:
    sweeps = [start(spec, tracking=True), start(spec, tracking=True)]
    outputs = [finish(sweep) for sweep in sweeps]
    assert [sweep.returncode for sweep in sweeps] == [0, 0], outputs
    assert contents(tmp_path / "runs" / "small") == undisturbed
    from flexhpc.tracking.quiet import mlflow_client

    client = mlflow_client(f"sqlite:///{tmp_path}/runs/small/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name == "small"]
    logged = client.search_runs([experiment.experiment_id], max_results=1000)
    tags = [run.data.tags.get("flexhpc.probe", run.data.tags["flexhpc.point_id"]) for run in logged]
    assert len(tags) == len(set(tags))


def test_detached_workers_go_on_alone_and_can_be_cancelled(
    spec: Path, tmp_path: Path, cli: Cli, untracked: Path, undisturbed: dict[str, object]
) -> None:
    run = tmp_path / "runs" / "small"
    said = cli("sweep", spec, "--profile", untracked, "--detach").stdout
    assert "workers started" in said
    wait_for(lambda: any(s.progress.get("epoch", 0) > 20 for s in running(run)))
    status = json.loads(cli("status", run, "--json").stdout)
    assert {"running"} <= {row["state"] for row in status}
    assert "points stopped" in cli("cancel", run).stdout
    assert not running(run)
    cli("sweep", spec, "--profile", untracked)
    assert contents(run) == undisturbed


def test_a_sweep_in_the_foreground_can_be_cancelled(
    spec: Path, tmp_path: Path, cli: Cli, undisturbed: dict[str, object]
) -> None:
    run = tmp_path / "runs" / "small"
    sweep = start(spec)
    wait_for(lambda: any(s.progress.get("epoch", 0) > 20 for s in running(run)))
    cli("cancel", run)
    output = finish(sweep)
    assert sweep.returncode == 130, output
    again = start(spec)
    finish(again)
    assert contents(run) == undisturbed


@pytest.mark.parametrize("ranks", [1, 2])
def test_killed_workers_are_replaced_and_a_deadly_point_is_given_up(
    ranks: int, tmp_path: Path
) -> None:
    """Kill every worker, or its peer, in the first probe of the first point: only that fails."""
    spec = tmp_path / "small.yaml"
    spec.write_text(
        LONGER.replace("epochs: 900", "epochs: 100000")
        .replace("start: 16", "start: 1000")
        .replace("[10, 14]", "[4]")
        .replace(
            "grid:", "zip:\n  - {training.epochs: [100000, 60], search.start: [1000, 16]}\ngrid:"
        )
    )
    run = tmp_path / "runs" / "small"
    sweep = start(spec, keys=f"workers: 1\nretries: 1\nprocesses_per_node: {ranks}\n")
    killed: set[int] = set()
    for _ in range(2):
        wait_for(lambda: victims(run) - killed)
        (first,) = victims(run) - killed
        siblings = psutil.Process(first).parent().children()
        assert len(siblings) == ranks
        os.kill(max(one.pid for one in siblings), signal.SIGKILL)
        killed.add(first)
    output = finish(sweep)
    assert sweep.returncode == 1, output
    assert "its worker died 2 times" in output
    folder, _, points = open_run(run)
    assert [s.state for s in StatusReader(folder, points).read()] == ["failed", "done"]


def children(pid: int, module: str) -> list[psutil.Process]:
    """The processes that another started to run a module."""
    found = []
    for child in psutil.Process(pid).children():
        with contextlib.suppress(psutil.Error):  # it ends just now
            if module in child.cmdline():
                found.append(child)
    return found


def test_a_killed_fork_server_costs_nothing(
    spec: Path, tmp_path: Path, undisturbed: dict[str, object]
) -> None:
    """Two workers come from one process; they go on without it, and the sweep sees them end."""
    run = tmp_path / "runs" / "small"
    sweep = start(spec, keys="workers: 2\n")
    wait_for(lambda: len(running(run)) == 2)
    (server,) = children(sweep.pid, "flexhpc.worker.fork_server")
    assert len(server.children()) == 2
    server.kill()
    output = finish(sweep)
    assert sweep.returncode == 0, output
    assert contents(run) == undisturbed
    assert len(list(run.glob("jobs/*/worker-*_0_log.err"))) == 2, "others were started"


def test_a_killed_writer_of_mlflow_is_told(
    spec: Path, tmp_path: Path, cli: Cli, undisturbed: dict[str, object]
) -> None:
    """Training goes on, and what it did not bring in comes with the next sync."""
    run = tmp_path / "runs" / "small"
    sweep = start(spec, tracking=True)
    wait_for(lambda: running(run))
    (writer,) = children(sweep.pid, "flexhpc.tracking.follow")
    writer.kill()
    output = finish(sweep)
    assert sweep.returncode == 0, output
    assert "warning: what keeps MLflow up to date died (-9)" in " ".join(output.split())
    assert contents(run) == undisturbed
    assert f"{len(probes_in(run))} probes" in cli("sync", run).stdout


def victims(run: Path) -> set[int]:
    """Processes that are training the first point."""
    if not (run / "sweep.yaml").is_file():
        return set()
    from flexhpc.store import read_claim

    folder, _, points = open_run(run)
    path = folder.claim(points[0].id)
    claim = read_claim(path)
    return {claim.pid} if claim and claim.live(path) and claim.progress else set()
