"""Concurrent probes measure the same as serial ones, also if processes are killed."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from flexhpc.config import Point, load_points
from flexhpc.errors import Interrupted, PeerLost, PointError
from flexhpc.launch.machine import available_cores, visible_gpus
from flexhpc.launch.profile import LocalProfile, SlurmProfile
from flexhpc.launch.slurm.arrays import ArrayRecord
from flexhpc.launch.slurm.script import batch_script
from flexhpc.measuring.point import measure
from flexhpc.measuring.pool import ProbePool
from flexhpc.store import RunFolder, read_claim, read_point_file
from flexhpc.training import Callbacks
from tests.barrier import Barrier, alive, wait_for
from tests.conftest import FULL, Cli, shared_folder
from tests.measuring.helpers import CPU, load_point, pool_of
from tests.point_files import results_of_point
from tests.sweeps import kill_sweep, start_sweep, wait_for_sweep

SPEC = """\
name: pool
fixed:
  data: {source: digits, labels: random}
  model: {family: "barrier_net:Net"}
  training: {optimizer: adam, lr: 1e-2, batch_size: 64, epochs: 100}
  search: {policy: bayes, start: 16, at_once: 3, max_cost: 9}
grid:
  seed: [0]
"""
PLAIN = SPEC.replace('family: "barrier_net:Net"', "family: mlp, width: 8, depth: 1")
PASSES = 3
"""Forward passes: less than the first probe, even if the budget is divided by 10."""
NARROW = max(1, (len(visible_gpus()) or available_cores()) // 8)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pool") / "pool.yaml"
    path.write_text(SPEC)
    Barrier(path.parent)
    return path


@pytest.fixture
def barrier(spec: Path) -> Iterator[Barrier]:
    """The barrier of the training runs in a pool; open after the test."""
    barrier = Barrier(spec.parent)
    yield barrier
    barrier.open()


@pytest.fixture(scope="module")
def point(spec: Path) -> Point:
    (point,) = load_points(spec)[1]
    return point


@pytest.fixture(scope="module")
def expected(point: Point, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Contents of the point measured in one process without a pool, in several rounds."""
    folder = shared_folder(
        tmp_path_factory, "serial",
        lambda folder: measure(point, RunFolder(folder), CPU, Callbacks()),
    )  # fmt: skip
    measured = results_of_point(point, RunFolder(folder))
    assert len(measured["probes"]) > 9, "several rounds of three"
    return measured


@pytest.fixture(scope="module")
def pool() -> Iterator[ProbePool]:
    """A pool of two processes, each of which imports torch only once for several tests."""
    with pool_of(2) as pool:
        yield pool


def processes(parent: int | None = None) -> set[int]:
    """Return the ids of the processes of a pool."""
    children = psutil.Process(parent).children()
    return {
        child.pid for child in children if "flexhpc.measuring.pool:serve_probes" in child.cmdline()
    }


def call_at_barrier(barrier: Barrier, count: int, action: Callable[[], object]) -> None:
    """Call a function in a thread when this number of processes waits at the barrier."""

    def run() -> None:
        barrier.wait(count)
        action()

    threading.Thread(target=run, daemon=True).start()


def test_stop_request_saves_all_probes_in_progress(
    point: Point, expected: dict[str, Any], barrier: Barrier, pool: ProbePool, tmp_path: Path
) -> None:
    run, stop = RunFolder(tmp_path), threading.Event()

    def request_stop() -> None:
        stop.set()
        barrier.continue_slowly()

    pool.close()  # processes that passed the open barrier do not wait again
    barrier.hold(PASSES)
    call_at_barrier(barrier, 2, request_stop)
    with pytest.raises(Interrupted):
        measure(point, run, CPU, Callbacks(should_stop=stop.is_set), pool)
    barrier.open()
    record = read_point_file(run.point_file(point.id))
    assert record.estimate is None
    before = {(p.n, p.repeat): p.finished for p in record.probes}
    assert len(run.checkpoints(point.id)) + len(before) == 2
    measure(point, run, CPU, Callbacks(), pool)
    assert results_of_point(point, run) == expected
    after = {(p.n, p.repeat): p.finished for p in read_point_file(run.point_file(point.id)).probes}
    assert before.items() <= after.items(), "a finished probe was trained again"


def test_killed_process_ends_the_attempt_and_loses_nothing(
    point: Point, expected: dict[str, Any], barrier: Barrier, pool: ProbePool, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path)
    barrier.hold(PASSES)
    with pool_of(2, checkpoint_every=0.05) as killed:
        call_at_barrier(barrier, 2, lambda: os.kill(min(barrier.waiting()), signal.SIGKILL))
        with pytest.raises(PeerLost, match="a process that trains probes died"):
            measure(point, run, CPU, Callbacks(), killed)
    barrier.open()
    measure(point, run, CPU, Callbacks(), pool)
    assert results_of_point(point, run) == expected


def test_process_killed_while_idle_ends_the_next_attempt(point: Point, tmp_path: Path) -> None:
    run, others = RunFolder(tmp_path), processes()
    pool = ProbePool(2, 1, 60.0)
    started = Callbacks(should_stop=lambda: len(processes() - others) == 2)
    with pytest.raises(Interrupted):
        measure(point, run, CPU, started, pool)
    killed = min(processes() - others)
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: not alive(killed), "the end of a process")
    with pytest.raises(PeerLost, match="died"):
        measure(point, run, CPU, Callbacks(), pool)
    closing = threading.Thread(target=pool.close, daemon=True)
    closing.start()
    wait_for(lambda: not closing.is_alive(), "the end of ProbePool.close")
    wait_for(lambda: processes() <= others, "the end of the processes")


def test_search_from_one_sample_fails_with_batch_norm(tmp_path: Path) -> None:
    """n = 1, 2 and 4 are planned together; n = 1 is impossible, so the fits at 2 and 4 are no
    bound."""
    point = load_point(tmp_path, PLAIN, "model.norm=batch", "search.start=1")
    run = RunFolder(tmp_path)
    with pytest.raises(PointError, match=r"increase search\.start"):
        measure(point, run, CPU, Callbacks())
    record = read_point_file(run.point_file(point.id))
    assert record.estimate is None
    assert [p.verdict for p in record.probes] == ["fit", "fit"]


def test_impossible_probe_of_one_sample_ends_left_censored(pool: ProbePool, tmp_path: Path) -> None:
    """n = 1 is impossible with batch norm; the other probes of the round count."""
    point = load_point(
        tmp_path, PLAIN, "model.norm=batch", "training.lr=1e-12", "training.epochs=3",
        "search.start=4",
    )  # fmt: skip
    estimate = measure(point, RunFolder(tmp_path / "serial"), CPU, Callbacks())
    assert measure(point, RunFolder(tmp_path / "pool"), CPU, Callbacks(), pool) == estimate
    assert estimate.censored == "left"
    record = read_point_file(RunFolder(tmp_path / "pool").point_file(point.id))
    assert min(probe.n for probe in record.probes) == 2


def test_point_with_a_lost_claim_is_not_written(
    point: Point, pool: ProbePool, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path)

    def owns_claim() -> bool:
        record = read_point_file(run.point_file(point.id))
        return record is None or len(record.probes) < 3

    callbacks = Callbacks(should_stop=lambda: not owns_claim(), owns_claim=owns_claim)
    with pytest.raises(Interrupted):
        measure(point, run, CPU, callbacks, pool)
    before = run.point_file(point.id).read_bytes()
    assert not run.checkpoints(point.id)
    pool.close()
    assert run.point_file(point.id).read_bytes() == before


@pytest.mark.parametrize("killed", ["worker", "probe", *(["everything"] if FULL else [])])
def test_sweep_with_killed_processes_equals_an_undisturbed_one(
    killed: str, spec: Path, point: Point, expected: dict[str, Any], tmp_path: Path
) -> None:
    """With two workers and one point, one worker trains two probes at once."""
    copy = Path(shutil.copy(spec, tmp_path))
    barrier = Barrier(tmp_path)
    start_copy = partial(start_sweep, copy, keys="workers: 2\nretries: 3\ncheckpoint_every: 0.2\n")
    path = tmp_path / "runs" / "pool"
    run = RunFolder(path)
    barrier.hold(PASSES)
    sweep = start_copy()
    probes = barrier.wait(2, sweep)
    barrier.continue_slowly()
    wait_for(lambda: bool(run.checkpoints(point.id)), "a checkpoint")
    worker = read_claim(run.claim_file(point.id)).pid
    assert probes == processes(worker)
    if killed == "everything":
        kill_sweep(sweep)
        barrier.open()
        sweep = start_copy()
    else:
        os.kill(worker if killed == "worker" else min(probes), signal.SIGKILL)
    wait_for(lambda: not any(map(alive, {worker, *probes})), "the end of the processes")
    barrier.open()
    output = wait_for_sweep(sweep)
    assert sweep.returncode == 0, output
    assert results_of_point(point, run) == expected
    assert not list(path.rglob("*.ckpt"))


@pytest.mark.parametrize(
    ("profile", "points", "expected"),
    [({"workers": 8}, 2, (2, 4)), ({"workers": 8}, 3, (3, 2)), ({"workers": 4}, 9, (4, 1)),
     ({"workers": 2, "probes_at_once": 3}, 9, (2, 3)), ({"probes_at_once": 8}, 9, (NARROW, 8)),
     ({"workers": 4, "processes_per_node": 2}, 1, (1, 1))],
)  # fmt: skip
def test_workers_and_probes_per_worker(
    profile: dict[str, int], points: int, expected: tuple[int, int]
) -> None:
    assert LocalProfile(cluster="local", **profile).workers_and_probes(points) == expected


def test_task_requests_cores_for_its_probes(tmp_path: Path) -> None:
    record = ArrayRecord(folder=tmp_path, name="x", tasks=1, throttle=1, job=None, slurm_conf=None)

    def script(**keys: int) -> str:
        profile = SlurmProfile(cluster="slurm", cpus_per_process=2, gpus_per_node=4, **keys)
        return batch_script(record, profile, tmp_path / "stop", previous_job=None, container=None)

    several = script(probes_at_once=4)
    assert "#SBATCH --cpus-per-task=8" in several
    (srun,) = [line for line in several.splitlines() if line.startswith("srun")]
    assert "--cpus-per-task=8" in srun
    assert "#SBATCH --cpus-per-task=2" in script(processes_per_node=4, probes_at_once=1)


def test_plan_prints_the_number_of_concurrent_probes(cli: Cli, spec: Path) -> None:
    two = spec.with_name("two.yaml")
    two.write_text("workers: 2\n")
    printed = cli("plan", spec, "--profile", two).stdout
    assert "searches plan up to 3 probes at once, of which 2 can run concurrently" in printed
    cluster = spec.with_name("cluster.yaml")
    cluster.write_text("cluster: slurm\n")
    assert "of which 1 can run concurrently" in cli("plan", spec, "--profile", cluster).stdout
