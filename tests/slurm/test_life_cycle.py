"""A task is disturbed in the middle of a probe, again and again: nothing is lost or repeated.

The point is trained by two processes, and its results must have the bits of an undisturbed run of
one process on this machine.
"""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
import torch

from flexhpc.errors import PointError
from flexhpc.store import read
from flexhpc.store.status import open_run
from tests.barrier import Barrier, wait_for
from tests.command import succeeded
from tests.conftest import FULL
from tests.slurm.conftest import Cluster, ended, finish
from tests.sweeps import contents

LONG = """\
name: long
fixed:
  data: {source: digits, labels: random, n_max: 400}
  model: {family: "gated:Net"}
  training: {optimizer: adam, lr: 1e-2, batch_size: 64, epochs: 1000, shards: 2}
  search: {policy: bisection, start: 400, tolerance: 2}
"""
WITHOUT_PLATEAU = LONG.replace("shards: 2", "shards: 2, gates: {plateau: off}")


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "long.yaml"
    path.write_text(WITHOUT_PLATEAU)
    return path


@pytest.fixture
def barrier(tmp_path: Path) -> Barrier:
    """Training runs make an update in 0.4 s until it is opened, so none ends before that."""
    barrier = Barrier(tmp_path)
    barrier.creep()
    return barrier


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("undisturbed")
    Barrier(folder)
    (folder / "long.yaml").write_text(WITHOUT_PLATEAU)
    (folder / "profile.yaml").write_text("tracking_uri: none\n")
    succeeded(folder, "sweep", "long.yaml", "--profile", "profile.yaml")
    return contents(folder / "runs" / "long")


class Watched:
    """The one point of a run: how far its record and its checkpoint are."""

    def __init__(self, run: Path) -> None:
        self.run = run

    def saved_at(self) -> int:
        """When the newest checkpoint was written (ns), or 0."""
        folder, _, (point,) = open_run(self.run)
        times = []
        for path in folder.checkpoints(point.id):
            with contextlib.suppress(FileNotFoundError):
                times.append(path.stat().st_mtime_ns)
        return max(times, default=0)

    def at(self) -> tuple[int, int]:
        """Finished probes, and steps of the next one that are saved, at one moment."""
        found: list[tuple[int, int]] = []

        def seen() -> bool:
            """Whether no probe ended, and no file was replaced, between the looks at its files."""
            with contextlib.suppress(OSError, PointError, RuntimeError, ValueError):
                before, at, after = self._tried(), self._steps(), self._tried()
                found.append((len(after), at))
                return before == after
            return False

        wait_for(seen, "a moment at which no probe ends")
        return found[-1]

    def _tried(self) -> set[tuple[int, int]]:
        folder, _, (point,) = open_run(self.run)
        record = read(folder.point(point.id))
        return {(p.n, p.repeat) for p in record.probes} if record else set()

    def _steps(self) -> int:
        folder, _, (point,) = open_run(self.run)
        tried = self._tried()
        steps = [
            torch.load(path, weights_only=True)["progress"]["steps"]
            for path in folder.checkpoints(point.id)
            if probe_of(path) not in tried
        ]
        return max(steps, default=0)

    def claim(self) -> dict:
        folder, _, (point,) = open_run(self.run)
        try:
            return json.loads(folder.claim(point.id).read_text())
        except (OSError, ValueError):
            return {}

    def wait_until_under_way(self, attempt: int) -> tuple[int, int]:
        """Wait until the given attempt has saved progress of its own."""
        wait_for(lambda: self.claim().get("attempts") == attempt, f"attempt {attempt}")
        start = self.saved_at()
        wait_for(lambda: self.saved_at() > start, "a checkpoint")
        return self.at()


def probe_of(checkpoint: Path) -> tuple[int, int]:
    """n and repeat of the probe that a checkpoint is of: POINT.N-REPEAT.ckpt."""
    n, repeat = checkpoint.name.split(".")[-2].split("-")
    return int(n), int(repeat)


def the_job(cluster: Cluster) -> tuple[str, str, str]:
    """``ARRAY_INDEX``, id and node of the only task that runs."""
    (task,) = [row for row in cluster.queue() if row[2] == "RUNNING" and "flexhpc-" in row[5]]
    return f"{task[0]}_{task[1]}", task[4], task[3]


Disturb = Callable[[Cluster], None]


def usr2(cluster: Cluster) -> None:
    cluster.ask("scancel", "--signal=USR2", the_job(cluster)[0])


def requeue(cluster: Cluster) -> None:
    cluster.ask("scontrol", "requeue", the_job(cluster)[0])


def preempt(cluster: Cluster) -> None:
    """A job of a higher partition that needs all nodes for a moment."""
    cluster.ask(
        "sbatch", "--partition=high", "--nodes=4", "--exclusive", "--output=/dev/null",
        "--wrap=sleep 1",
    )  # fmt: skip


def kill_node(cluster: Cluster) -> None:
    node = the_job(cluster)[2]
    cluster.kill_node(node)
    wait_for(lambda: "down" in cluster.nodes()[node], cluster.nodes)
    cluster.up()


def kill_rank(cluster: Cluster) -> None:
    job = the_job(cluster)[1]
    wait_for(lambda: len(cluster.job_processes(job)) == 2, "two ranks")
    cluster.job_processes(job)[1].send_signal(signal.SIGKILL)


KINDS = (usr2, requeue, preempt, kill_node, kill_rank)


def disturb_again_and_again(run: Path, disturbances: Sequence[Callable[[], None]]) -> Watched:
    """Disturb a run's only point, each time in the middle of a probe that has got further."""
    wait_for(lambda: (run / "sweep.yaml").exists(), "the run folder")
    watched, reached = Watched(run), (-1, 0)
    for attempt, disturb in enumerate(disturbances, 1):
        at = watched.wait_until_under_way(attempt)
        assert at > reached, "an attempt begins where the last checkpoint was"
        reached = watched.at()
        disturb()
    return watched


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kinds", [[kind] * 5 for kind in KINDS] if FULL else [KINDS])
def test_disturbed_again_and_again(
    kinds: Sequence[Disturb], cluster: Cluster, spec: Path, barrier: Barrier, tmp_path: Path,
    undisturbed: dict[str, object],
) -> None:  # fmt: skip
    """By each kind in turn; `make test-full` repeats each five times."""
    profile = cluster.profile(tmp_path, processes_per_node=2, checkpoint_every=1)
    sweep = cluster.sweep(spec, profile)
    run = tmp_path / "runs" / "long"
    watched = disturb_again_and_again(run, [partial(kind, cluster) for kind in kinds])
    barrier.open()
    ended(sweep)
    assert contents(run) == undisturbed
    claim = watched.claim()
    assert claim["attempts"] >= len(kinds) + 1
    submitted = list(run.glob("jobs/*/array-*/array.json"))
    assert len(submitted) == 1, "SLURM started the task again, nobody submitted it again"
    assert not list(run.rglob("*.ckpt"))
    assert not list(run.rglob("*.part"))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_points_that_run_out_of_time(cluster: Cluster, barrier: Barrier, tmp_path: Path) -> None:
    """SLURM looks for tasks out of time every 30 s, and five points share two cores.

    Their start alone takes 10 s or more: with a time limit of a minute they would hardly get on.
    """
    grid = "grid:\n  seed: [0, 1, 2, 3, 4]\n"
    spec = tmp_path / "long.yaml"
    spec.write_text(WITHOUT_PLATEAU.replace("shards: 2, ", "") + grid)
    profile = cluster.profile(tmp_path, time=2, stop_before=60, checkpoint_every=10)
    sweep = cluster.sweep(spec, profile)
    run = tmp_path / "runs" / "long"

    def claims() -> list[dict]:
        return [json.loads(path.read_text()) for path in run.glob("points/*/*.claim.json")]

    wait_for(lambda: sum(c["attempts"] > 1 for c in claims()) == 5, "second allocations", 800)
    barrier.open()
    output = finish(sweep, 800)
    assert sweep.returncode == 0, output
    assert sum(claim["deaths"] for claim in claims()) == 0
    local = tmp_path / "local.yaml"
    local.write_text("tracking_uri: none\n")
    succeeded(tmp_path, "sweep", spec, "--profile", local, "--runs", "local")
    assert contents(run) == contents(tmp_path / "local" / "long")


def test_a_task_that_outlives_its_node_is_the_only_writer(
    cluster: Cluster, spec: Path, barrier: Barrier, undisturbed: dict[str, object], tmp_path: Path
) -> None:
    """slurmd and its stepds die, the task runs on: what SLURM starts again must not write."""
    profile = cluster.profile(tmp_path, checkpoint_every=1)
    sweep = cluster.sweep(spec, profile)
    run = tmp_path / "runs" / "long"
    wait_for(lambda: (run / "sweep.yaml").exists(), "the run folder")
    watched = Watched(run)
    watched.wait_until_under_way(1)
    first = watched.claim()
    _, job, node = the_job(cluster)
    (task,) = cluster.job_processes(job)
    for parent in task.parents():
        if parent.name() == "slurmstepd":
            parent.kill()
    cluster.kill_daemon(f"slurmd.{node}")
    wait_for(lambda: any(p.pid != task.pid for p in cluster.job_processes(job)), cluster.queue)
    barrier.open()
    output = finish(sweep)
    cluster.up()
    assert sweep.returncode == 0, output
    assert contents(run) == undisturbed
    last = watched.claim()
    assert (last["attempts"], last["token"]) == (1, first["token"])
