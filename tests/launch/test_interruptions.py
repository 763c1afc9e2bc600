"""Sweeps that are killed, interrupted, cancelled or started twice: no probe is lost or repeated."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from flexhpc.launch.local import LocalBackend
from flexhpc.launch.prepare import prepare_run
from flexhpc.launch.profile import LocalProfile
from flexhpc.launch.sweep import write_launch
from tests.barrier import Barrier, alive, wait_for
from tests.conftest import FULL, Cli, shared_folder
from tests.sweeps import (
    WITH_BARRIER,
    finish_with_status,
    logged_names,
    measure_undisturbed,
    probes_in,
    results_by_point,
    running_points,
    start_sweep,
    states,
    statuses,
    wait_for_sweep,
)

PASSES = 3
"""Forward passes, some epochs. Two restarts fit into the first probe, even if the budget is divided
by 10."""
TWO_WORKERS = "workers: 2\n"


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(WITH_BARRIER)
    return path


@pytest.fixture
def barrier(tmp_path: Path) -> Barrier:
    return Barrier(tmp_path)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "small"


@pytest.fixture(scope="module")
def undisturbed_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = shared_folder(
        tmp_path_factory, "undisturbed", lambda folder: measure_undisturbed(folder, WITH_BARRIER)
    )
    return folder / "runs" / "small"


@pytest.fixture
def check_results(run: Path, undisturbed_run: Path) -> Callable[[], None]:
    """Compare the results with those of an undisturbed run."""
    expected = results_by_point(undisturbed_run)

    def check() -> None:
        assert results_by_point(run) == expected

    return check


@pytest.fixture
def resume(
    spec: Path, barrier: Barrier, cli: Cli, check_results: Callable[[], None]
) -> Callable[[], None]:
    """Run the same command again to the end; compare the results with an undisturbed run."""
    profile = spec.with_name("two_workers.yaml")
    profile.write_text(f"tracking_uri: none\n{TWO_WORKERS}")

    def resume_and_check() -> None:
        barrier.open()
        cli("sweep", spec, "--profile", profile)
        check_results()

    return resume_and_check


@pytest.mark.parametrize("target", ["sweep", "everything"])
def test_results_do_not_depend_on_repeated_kills(
    target: str, spec: Path, run: Path, barrier: Barrier, undisturbed_run: Path,
    resume: Callable[[], None],
) -> None:  # fmt: skip
    """SIGKILL after random numbers of updates."""
    rounds = 4 if FULL else 2
    updates = min(sum(probe.steps for probe in s.record.probes) for s in statuses(undisturbed_run))
    rng = np.random.default_rng(1 if target == "sweep" else 2)
    probes: set[tuple] = set()
    for _ in range(rounds):
        barrier.hold(int(rng.integers(1, updates // rounds)))
        sweep = start_sweep(spec, keys=f"{TWO_WORKERS}checkpoint_every: 0.05\n")
        barrier.wait(sweep=sweep)
        if target == "sweep":
            os.kill(sweep.pid, signal.SIGKILL)
        else:
            os.killpg(sweep.pid, signal.SIGKILL)
            for pid in barrier.waiting():
                os.kill(pid, signal.SIGKILL)
        barrier.continue_slowly()
        wait_for_sweep(sweep)
        wait_for(lambda: not running_points(run), "the end of the workers")
        assert probes <= probes_in(run), "a finished probe was lost"
        probes = probes_in(run)
    resume()
    assert probes <= probes_in(run), "a finished probe was repeated"


def test_a_moved_run_folder_ends_the_sweep_with_one_message(
    spec: Path, run: Path, barrier: Barrier, tmp_path: Path, resume: Callable[[], None]
) -> None:
    """The folder is not recreated; after it is moved back, the same command resumes."""
    moved = tmp_path / "moved" / "small"
    moved.parent.mkdir()
    barrier.hold(PASSES)
    sweep = start_sweep(spec, tracking=True, keys=TWO_WORKERS)
    barrier.wait(2, sweep)
    run.rename(moved)
    barrier.continue_slowly()
    output = finish_with_status(sweep, 1)
    assert "small was moved or removed during the sweep" in output
    assert "Traceback" not in output
    wait_for(lambda: not running_points(moved), "the end of the workers")
    assert not run.exists(), list(run.rglob("*"))
    moved.rename(run)
    resume()


@pytest.mark.parametrize("request_stop", [signal.SIGINT, signal.SIGTERM, "cancel"])
def test_an_interrupted_sweep_saves_its_probes_and_resumes(
    request_stop: signal.Signals | str, spec: Path, run: Path, barrier: Barrier, cli: Cli,
    resume: Callable[[], None],
) -> None:  # fmt: skip
    barrier.hold(PASSES)
    sweep = start_sweep(spec, keys=TWO_WORKERS)
    barrier.wait(2, sweep)
    if isinstance(request_stop, signal.Signals):
        os.killpg(sweep.pid, request_stop)
        barrier.continue_slowly()
    else:
        barrier.continue_slowly()  # cancel waits for the workers
        cli("cancel", run)
    assert "the same command resumes" in finish_with_status(sweep, 130)
    assert len(list(run.rglob("*.ckpt"))) == 2, "a probe in progress was not saved"
    assert states(run) == ["stopped", "stopped"]
    resume()


def test_two_sweeps_at_once_measure_every_point_once(
    spec: Path, barrier: Barrier, tmp_path: Path, check_results: Callable[[], None]
) -> None:
    """Each sweep has a worker; the training runs wait until both sweeps have started."""
    barrier.hold(PASSES)
    sweeps = [start_sweep(spec, tracking=True, keys="workers: 1\n") for _ in range(2)]
    barrier.wait(2, sweeps[0])
    barrier.open()
    for sweep in sweeps:
        finish_with_status(sweep)
    check_results()
    names = logged_names(tmp_path / "runs" / "small")
    assert len(names) == len(set(names))


def test_detached_workers_can_be_cancelled(
    spec: Path, run: Path, barrier: Barrier, cli: Cli, profile: Path, resume: Callable[[], None]
) -> None:
    barrier.hold(PASSES)
    output = cli("sweep", spec, "--profile", profile, "--detach").stdout
    assert "workers started" in output
    barrier.wait()
    wait_for(
        lambda: any(s.progress.get("epoch") for s in running_points(run)), "progress in the claim"
    )
    status = json.loads(cli("status", run, "--json").stdout)
    assert sorted(row["state"] for row in status) == ["running", "waiting"]
    barrier.continue_slowly()
    assert "points stopped" in cli("cancel", run).stdout
    assert not running_points(run)
    assert list(run.rglob("*.ckpt"))
    resume()


@pytest.mark.parametrize("ranks", [1, 2])
def test_killed_workers_use_up_retries(
    ranks: int, tmp_path: Path, run: Path, barrier: Barrier
) -> None:
    """Kill every worker, or its peer, in the first probe of the first point: only that fails."""
    spec = tmp_path / "small.yaml"
    spec.write_text(WITH_BARRIER.replace("[10, 14]", "[10, 4]"))
    sweep = start_sweep(spec, keys=f"workers: 1\nretries: 1\nprocesses_per_node: {ranks}\n")
    for _ in range(2):
        barrier.hold(PASSES)
        workers = barrier.wait(ranks, sweep)
        os.kill(max(workers), signal.SIGKILL)
        barrier.continue_slowly()  # the peer notices the loss when it communicates
        wait_for(lambda pids=workers: not any(map(alive, pids)), "the end of a worker")
    barrier.open()
    assert "its worker died 2 times" in finish_with_status(sweep, 1)
    assert states(run) == ["failed", "done"]


def child_of(pid: int, module: str) -> psutil.Process:
    """Return the only child that runs a module."""
    children = []
    for child in psutil.Process(pid).children():
        with contextlib.suppress(psutil.Error):  # the child has ended
            if module in child.cmdline():
                children.append(child)
    (only_child,) = children
    return only_child


def test_a_killed_fork_server_does_not_affect_its_workers(
    spec: Path, run: Path, barrier: Barrier, check_results: Callable[[], None]
) -> None:
    barrier.hold(PASSES)
    sweep = start_sweep(spec, keys=TWO_WORKERS)
    barrier.wait(2, sweep)
    server = child_of(sweep.pid, "flexhpc.worker.fork_server")
    assert len(server.children()) == 2
    server.kill()
    barrier.open()
    finish_with_status(sweep)
    check_results()
    assert len(list(run.glob("jobs/*/worker-*_0_log.err"))) == 2, "other workers were started"


def test_the_state_of_local_workers_changes_only_at_a_poll(
    spec: Path, tmp_path: Path, barrier: Barrier
) -> None:
    """Also if the fork server was killed. Otherwise, a sweep replaces workers that succeeded."""
    prepared = prepare_run(spec, (), tmp_path / "runs")
    profile = LocalProfile(workers=1)
    write_launch(prepared, profile, "a", None, detach=False)
    backend = LocalBackend(prepared.run.jobs / "a", profile)
    barrier.hold(PASSES)
    backend.start_workers([point.id for point in prepared.points])
    (pid,) = barrier.wait()
    server = psutil.Process(psutil.Process(pid).ppid())
    server.kill()
    wait_for(lambda: not alive(server.pid), "the end of the fork server")
    barrier.open()
    wait_for(lambda: not alive(pid), "the end of the worker")
    assert backend.has_workers()
    backend.poll()
    assert not backend.has_workers()


def test_a_killed_mlflow_process_is_reported(
    spec: Path, run: Path, barrier: Barrier, cli: Cli, check_results: Callable[[], None]
) -> None:
    """Training continues; `flexhpc sync` logs the rest."""
    barrier.hold(PASSES)
    sweep = start_sweep(spec, tracking=True, keys=TWO_WORKERS)
    barrier.wait(2, sweep)
    child_of(sweep.pid, "flexhpc.tracking.periodic_sync").kill()
    barrier.open()
    assert "warning: the MLflow process died (exit status -9)" in finish_with_status(sweep)
    check_results()
    assert f"{len(probes_in(run))} probes" in cli("sync", run).stdout
