"""Probes side by side: the same numbers as one after the other, whatever dies on the way."""

from __future__ import annotations

import contextlib
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
import torch

from flexhpc.config import Point, checked
from flexhpc.errors import Interrupted, PeerLost, PointError
from flexhpc.launch.machine import available_cores, visible_gpus
from flexhpc.launch.profile import LocalProfile, SlurmProfile
from flexhpc.launch.slurm.script import batch_script
from flexhpc.measuring.point import measure
from flexhpc.measuring.pool import ProbePool
from flexhpc.search import Estimate
from flexhpc.store import RunFolder, read, read_claim
from flexhpc.training import Callbacks, Group
from tests.barrier import Barrier, alive, wait_for
from tests.conftest import FULL, Cli
from tests.contents import contents
from tests.sweeps import end, finish, start

SPEC = """\
name: several
fixed:
  data: {source: digits, labels: random}
  model: {family: "gated:Net"}
  training: {optimizer: adam, lr: 1e-2, batch_size: 64, epochs: 300}
  search: {policy: bayes, start: 16, at_once: 3, max_cost: 9}
grid:
  seed: [0]
"""
PLAIN = SPEC.replace('family: "gated:Net"', "family: mlp, width: 8, depth: 1")
PASSES = 20
NARROW = max(1, (len(visible_gpus()) or available_cores()) // 8)
CPU = Group(torch.device("cpu"))


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("several") / "several.yaml"
    path.write_text(SPEC)
    Barrier(path.parent)
    return path


@pytest.fixture
def barrier(spec: Path) -> Iterator[Barrier]:
    """The barrier of the training runs in a pool, open again afterwards."""
    barrier = Barrier(spec.parent)
    yield barrier
    barrier.open()


@pytest.fixture(scope="module")
def point(spec: Path) -> Point:
    (point,) = checked(spec)[1]
    return point


@pytest.fixture(scope="module")
def alone(point: Point, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process finds, one probe after the other."""
    run = RunFolder(tmp_path_factory.mktemp("alone"))
    measure(point, run, CPU, Callbacks())
    return contents(point, run)


@contextlib.contextmanager
def pool_of(size: int, checkpoint_every: float = 60.0) -> Iterator[ProbePool]:
    pool = ProbePool(size, 1, checkpoint_every)
    try:
        yield pool
    finally:
        pool.close()


def processes(of: int | None = None) -> set[int]:
    children = psutil.Process(of).children()
    return {child.pid for child in children if "flexhpc.measuring.pool:serve" in child.cmdline()}


def at_the_barrier(barrier: Barrier, count: int, action: Callable[[], object]) -> None:
    def run() -> None:
        barrier.wait(count)
        action()

    threading.Thread(target=run, daemon=True).start()


def test_a_pool_measures_the_same(point: Point, alone: dict[str, Any], tmp_path: Path) -> None:
    with pool_of(2) as pool:
        measure(point, RunFolder(tmp_path), CPU, Callbacks(), pool)
    assert contents(point, RunFolder(tmp_path)) == alone
    assert len(alone["probes"]) > 9, "several rounds of three"
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_request_to_stop_saves_all_probes_in_progress(
    point: Point, alone: dict[str, Any], barrier: Barrier, tmp_path: Path
) -> None:
    run, stop = RunFolder(tmp_path), threading.Event()

    def ask() -> None:
        stop.set()
        barrier.creep()

    barrier.hold(PASSES)
    with pool_of(3) as pool:
        at_the_barrier(barrier, 3, ask)
        with pytest.raises(Interrupted):
            measure(point, run, CPU, Callbacks(should_stop=stop.is_set), pool)
        barrier.open()
        record = read(run.point(point.id))
        assert record.estimate is None
        done = {(p.n, p.repeat): p.finished for p in record.probes}
        assert len(run.checkpoints(point.id)) + len(done) == 3
        measure(point, run, CPU, Callbacks(), pool)
    assert contents(point, run) == alone
    again = {(p.n, p.repeat): p.finished for p in read(run.point(point.id)).probes}
    assert done.items() <= again.items(), "a finished probe was trained again"


def test_a_process_that_dies_ends_the_attempt_and_loses_nothing(
    point: Point, alone: dict[str, Any], barrier: Barrier, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path)
    barrier.hold(PASSES)
    with pool_of(2, checkpoint_every=0.05) as pool:
        at_the_barrier(barrier, 2, lambda: os.kill(min(barrier.waiting()), signal.SIGKILL))
        with pytest.raises(PeerLost, match="a process that trains probes died"):
            measure(point, run, CPU, Callbacks(), pool)
    barrier.open()
    with pool_of(2) as pool:
        measure(point, run, CPU, Callbacks(), pool)
    assert contents(point, run) == alone


def test_a_process_that_died_idle(point: Point, alone: dict[str, Any], tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    pool = ProbePool(2, 1, 60.0)
    with pytest.raises(Interrupted):
        measure(point, run, CPU, Callbacks(should_stop=lambda: len(processes()) == 2), pool)
    killed = min(processes())
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: not alive(killed), "the end of a process")
    with pytest.raises(PeerLost, match="died"):
        measure(point, run, CPU, Callbacks(), pool)
    closing = threading.Thread(target=pool.close, daemon=True)
    closing.start()
    wait_for(lambda: not closing.is_alive(), "the end of ProbePool.close")
    wait_for(lambda: not processes(), "the end of the processes")


def test_a_network_that_cannot_train_on_one_sample_is_not_given_an_answer(tmp_path: Path) -> None:
    """1, 2 and 4 are planned together, and 1 is impossible: the others' fits are no bound."""
    path = tmp_path / "spec.yaml"
    path.write_text(
        PLAIN.replace("depth: 1", "depth: 1, norm: batch").replace("start: 16", "start: 1")
    )
    (point,) = checked(path)[1]
    run = RunFolder(tmp_path)
    with pytest.raises(PointError, match="use a larger search"):
        measure(point, run, CPU, Callbacks())
    record = read(run.point(point.id))
    assert record.estimate is None
    assert [p.verdict for p in record.probes] == ["fit", "fit"]


def test_a_point_that_was_taken_over_is_left_alone(point: Point, tmp_path: Path) -> None:
    run = RunFolder(tmp_path)

    def holds() -> bool:
        record = read(run.point(point.id))
        return record is None or len(record.probes) < 3

    callbacks = Callbacks(should_stop=lambda: not holds(), owns_claim=holds)
    with pool_of(2) as pool:
        with pytest.raises(Interrupted):
            measure(point, run, CPU, callbacks, pool)
        before = run.point(point.id).read_bytes()
        assert not run.checkpoints(point.id)
    assert run.point(point.id).read_bytes() == before


def test_networks_that_cannot_train_on_one_sample_end_censored(tmp_path: Path) -> None:
    """One of the three probes of the last batch is impossible; the others count."""
    path = tmp_path / "spec.yaml"
    path.write_text(
        PLAIN.replace("depth: 1", "depth: 1, norm: batch")
        .replace("lr: 1e-2", "lr: 1e-12")
        .replace("epochs: 300", "epochs: 3")
        .replace("start: 16", "start: 4")
    )
    (point,) = checked(path)[1]
    found: list[Estimate] = [measure(point, RunFolder(tmp_path / "alone"), CPU, Callbacks())]
    with pool_of(2) as pool:
        found.append(measure(point, RunFolder(tmp_path / "pool"), CPU, Callbacks(), pool))
    assert found[0] == found[1]
    assert found[0].censored == "left"
    record = read(RunFolder(tmp_path / "pool").point(point.id))
    assert min(probe.n for probe in record.probes) == 2


@pytest.mark.parametrize("whom", ["worker", "its probe", *(["everything"] if FULL else [])])
def test_kill_nine_in_the_middle_of_a_sweep(
    whom: str, spec: Path, point: Point, alone: dict[str, Any], tmp_path: Path
) -> None:
    """Two workers for one point: the one that has it trains two probes at once."""
    here = tmp_path / spec.name
    shutil.copy(spec, here)
    barrier = Barrier(tmp_path)
    begin = partial(start, here, keys="workers: 2\nretries: 3\ncheckpoint_every: 0.2\n")
    path = tmp_path / "runs" / "several"
    run = RunFolder(path)
    barrier.hold(PASSES)
    sweep = begin()
    probes = barrier.wait(2, sweep)
    barrier.creep()
    wait_for(lambda: bool(run.checkpoints(point.id)), "a checkpoint")
    worker = read_claim(run.claim(point.id)).pid
    assert probes == processes(worker)
    if whom == "everything":
        end(sweep)
        barrier.open()
        sweep = begin()
    else:
        os.kill(worker if whom == "worker" else min(probes), signal.SIGKILL)
    wait_for(lambda: not any(map(alive, {worker, *probes})), "the end of the processes")
    barrier.open()
    output = finish(sweep)
    assert sweep.returncode == 0, output
    assert contents(point, run) == alone
    assert not list(path.rglob("*.ckpt"))


@pytest.mark.parametrize(
    ("profile", "points", "expected"),
    [({"workers": 8}, 2, (2, 4)), ({"workers": 8}, 3, (3, 2)), ({"workers": 4}, 9, (4, 1)),
     ({"workers": 2, "probes_at_once": 3}, 9, (2, 3)), ({"probes_at_once": 8}, 9, (NARROW, 8)),
     ({"workers": 4, "processes_per_node": 2}, 1, (1, 1))],
)  # fmt: skip
def test_workers_per_point(profile: dict[str, int], points: int, expected: tuple[int, int]) -> None:
    assert LocalProfile(cluster="local", **profile).spread(points) == expected


def test_a_task_gets_the_cores_for_its_probes(tmp_path: Path) -> None:
    def script(**keys: int) -> str:
        profile = SlurmProfile(cluster="slurm", cpus_per_process=2, gpus_per_node=4, **keys)
        return batch_script(
            tmp_path, profile, name="x", stop=tmp_path / "stop", tasks=1, throttle=1,
            after=None, python="python",
        )  # fmt: skip

    several = script(probes_at_once=4)
    assert "#SBATCH --cpus-per-task=8" in several
    (srun,) = [line for line in several.splitlines() if line.startswith("srun")]
    assert "--cpus-per-task=8" in srun
    assert "#SBATCH --cpus-per-task=2" in script(processes_per_node=4, probes_at_once=1)


def test_the_plan_says_how_many_train_at_the_same_time(cli: Cli, spec: Path) -> None:
    two = spec.with_name("two.yaml")
    two.write_text("workers: 2\n")
    printed = cli("plan", spec, "--profile", two).stdout
    assert "searches plan up to 3 probes at once, 2 of them train at the same time" in printed
    cluster = spec.with_name("cluster.yaml")
    cluster.write_text("cluster: slurm\n")
    assert "1 of them trains at the same time" in cli("plan", spec, "--profile", cluster).stdout


def test_the_number_of_probes_at_once_is_no_part_of_an_id(spec: Path) -> None:
    one = spec.with_name("one.yaml")
    one.write_text(SPEC.replace("at_once: 3", "at_once: 1"))
    assert len({checked(path)[1][0].id for path in (spec, one)}) == 1
