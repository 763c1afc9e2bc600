"""Tasks on a real SLURM that are disturbed repeatedly in the middle of a probe.

Two processes train the point. Its results are bitwise equal to those of an undisturbed run of one
process on this machine.
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
from flexhpc.store import read_point_file
from flexhpc.store.status import open_run
from tests.barrier import Barrier, wait_for
from tests.conftest import FULL
from tests.slurm.conftest import Cluster
from tests.slurm.test_sweeps import measure_locally, submissions
from tests.sweeps import finish_with_status, measure_undisturbed, results_by_point, wait_for_sweep

LONG = """\
name: long
fixed:
  data: {source: digits, labels: random, n_max: 400}
  model: {family: "barrier_net:Net"}
  training: {optimizer: adam, lr: 1e-2, batch_size: 64, epochs: 300, shards: 2}
  search: {policy: bisection, start: 400, tolerance: 2}
"""
SATURATED = """\
name: long
fixed:
  data: {source: digits, labels: random, n_max: 400}
  model: {family: "barrier_net:Net"}
  training: {optimizer: adam, lr: 1e-2, until: saturation, steps: 200, max_budget: 800}
  search: {policy: bayes, start: 200, tolerance: 0.5}
"""
WITHOUT_PLATEAU = LONG.replace("shards: 2", "shards: 2, gates: {plateau: off}")


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "long.yaml"
    path.write_text(WITHOUT_PLATEAU)
    return path


@pytest.fixture
def barrier(tmp_path: Path) -> Barrier:
    """A barrier at which an update takes 0.4 s: no training run ends before it is opened."""
    barrier = Barrier(tmp_path)
    barrier.continue_slowly()
    return barrier


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("undisturbed")
    return results_by_point(measure_undisturbed(folder, WITHOUT_PLATEAU))


class Progress:
    """The progress of a run of one point, from its record, checkpoints and claim."""

    def __init__(self, run: Path) -> None:
        self._folder, _, (self._point,) = open_run(run)

    def saved_at(self) -> int:
        """Return the time of the newest checkpoint in ns, or 0."""
        times = []
        for path in self._folder.checkpoints(self._point.id):
            with contextlib.suppress(FileNotFoundError):
                times.append(path.stat().st_mtime_ns)
        return max(times, default=0)

    def snapshot(self) -> tuple[int, int]:
        """Return the number of finished probes and the saved steps of the current probe."""
        results: list[tuple[int, int]] = []

        def is_consistent() -> bool:
            """Read both; return whether no probe ended and no file was replaced meanwhile."""
            with contextlib.suppress(OSError, PointError, RuntimeError, ValueError):
                before, steps, after = self._finished(), self._steps(), self._finished()
                results.append((len(after), steps))
                return before == after
            return False

        wait_for(is_consistent, "a moment at which no probe ends")
        return results[-1]

    def _finished(self) -> set[tuple[int, int]]:
        record = read_point_file(self._folder.point_file(self._point.id))
        return {(p.n, p.repeat) for p in record.probes} if record else set()

    def _steps(self) -> int:
        finished = self._finished()
        steps = [
            torch.load(path, weights_only=True)["progress"]["steps"]
            for path in self._folder.checkpoints(self._point.id)
            if probe_of(path) not in finished
        ]
        return max(steps, default=0)

    def claim(self) -> dict:
        try:
            return json.loads(self._folder.claim_file(self._point.id).read_text())
        except (OSError, ValueError):
            return {}

    def wait_for_checkpoint(self, attempt: int) -> tuple[int, int]:
        """Wait until an attempt has saved a checkpoint; return the progress."""
        wait_for(lambda: self.claim().get("attempts") == attempt, f"attempt {attempt}")
        start = self.saved_at()
        wait_for(lambda: self.saved_at() > start, "a checkpoint")
        return self.snapshot()


def probe_of(checkpoint: Path) -> tuple[int, int]:
    """Return n and repeat of the probe of a checkpoint: POINT.N-REPEAT.ckpt."""
    n, repeat = checkpoint.name.split(".")[-2].split("-")
    return int(n), int(repeat)


def running_task(cluster: Cluster) -> tuple[str, str, str]:
    """Return ``ARRAY_INDEX``, job id and node of the only running task."""
    (task,) = [row for row in cluster.queue() if row[2] == "RUNNING" and "flexhpc-" in row[5]]
    return f"{task[0]}_{task[1]}", task[4], task[3]


Disturb = Callable[[Cluster], None]


def usr2(cluster: Cluster) -> None:
    cluster.run("scancel", "--signal=USR2", running_task(cluster)[0])


def requeue(cluster: Cluster) -> None:
    cluster.run("scontrol", "requeue", running_task(cluster)[0])


def preempt(cluster: Cluster) -> None:
    """Submit a short job for all nodes to a partition with a higher priority."""
    cluster.run(
        "sbatch", "--partition=high", "--nodes=4", "--exclusive", "--output=/dev/null",
        "--wrap=sleep 1",
    )  # fmt: skip


def kill_node(cluster: Cluster) -> None:
    node = running_task(cluster)[2]
    cluster.kill_node(node)
    wait_for(lambda: "down" in cluster.nodes()[node], cluster.nodes)
    cluster.up()


def kill_rank(cluster: Cluster) -> None:
    job = running_task(cluster)[1]
    wait_for(lambda: len(cluster.job_processes(job)) == 2, "two ranks")
    cluster.job_processes(job)[1].send_signal(signal.SIGKILL)


KINDS = (usr2, requeue, preempt, kill_node, kill_rank)


def disturb_repeatedly(run: Path, disturbances: Sequence[Callable[[], None]]) -> Progress:
    """Disturb the only point of a run, each time after the probe in progress was resumed."""
    wait_for(lambda: (run / "sweep.yaml").exists(), "the run folder")
    progress, reached = Progress(run), (-1, 0)
    for attempt, disturb in enumerate(disturbances, 1):
        assert progress.wait_for_checkpoint(attempt) > reached, "not resumed from a checkpoint"
        reached = progress.snapshot()
        disturb()
    return progress


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kinds", [[kind] * 5 for kind in KINDS] if FULL else [KINDS])
def test_results_do_not_depend_on_repeated_disturbances(
    kinds: Sequence[Disturb], cluster: Cluster, spec: Path, barrier: Barrier, tmp_path: Path,
    undisturbed: dict[str, object],
) -> None:  # fmt: skip
    """`make test-full` repeats each kind five times."""
    profile = cluster.profile(tmp_path, processes_per_node=2, checkpoint_every=1)
    sweep = cluster.sweep(spec, profile)
    run = tmp_path / "runs" / "long"
    progress = disturb_repeatedly(run, [partial(kind, cluster) for kind in kinds])
    barrier.open()
    finish_with_status(sweep)
    assert results_by_point(run) == undisturbed
    assert progress.claim()["attempts"] >= len(kinds) + 1
    assert len(submissions(run)) == 1, "submitted again instead of requeued by SLURM"
    assert not list(run.rglob("*.ckpt"))
    assert not list(run.rglob("*.part"))


def test_a_continued_training_run_is_preempted(cluster: Cluster, tmp_path: Path) -> None:
    spec = tmp_path / "long.yaml"
    spec.write_text(SATURATED)
    barrier = Barrier(tmp_path)
    expected = measure_locally(spec)
    folder, _, (point,) = open_run(tmp_path / "local" / "long")
    probes = read_point_file(folder.point_file(point.id)).probes
    continued = next(i for i, probe in enumerate(probes) if probe.stage)
    assert (probes[continued].n, probes[continued].repeat) in {
        (probe.n, probe.repeat) for probe in probes[:continued]
    }
    barrier.hold(sum(probe.steps for probe in probes[:continued]) + 20)
    profile = cluster.profile(tmp_path, processes_per_node=1)
    sweep = cluster.sweep(spec, profile)
    barrier.wait(1, sweep)
    barrier.continue_slowly()
    preempt(cluster)
    run = tmp_path / "runs" / "long"
    wait_for(lambda: Progress(run).claim().get("attempts") == 2, "a second attempt")
    barrier.open()
    finish_with_status(sweep)
    assert results_by_point(run) == expected
    assert not list(run.rglob("*.ckpt"))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_tasks_are_requeued_at_their_time_limit(
    cluster: Cluster, barrier: Barrier, tmp_path: Path
) -> None:
    """SLURM checks time limits every 30 s, and five points share two cores.

    The start of a task takes 10 s or more, so a time limit of a minute leaves little to train.
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
    output = wait_for_sweep(sweep, 800)
    assert sweep.returncode == 0, output
    assert sum(claim["deaths"] for claim in claims()) == 0
    assert results_by_point(run) == measure_locally(spec)


def test_a_task_that_outlives_its_node_keeps_its_claim(
    cluster: Cluster, spec: Path, barrier: Barrier, undisturbed: dict[str, object], tmp_path: Path
) -> None:
    """slurmd and its stepds are killed, and the task continues: a second task must not write."""
    profile = cluster.profile(tmp_path, checkpoint_every=1)
    sweep = cluster.sweep(spec, profile)
    run = tmp_path / "runs" / "long"
    wait_for(lambda: (run / "sweep.yaml").exists(), "the run folder")
    progress = Progress(run)
    progress.wait_for_checkpoint(1)
    first = progress.claim()
    _, job, node = running_task(cluster)
    (task,) = cluster.job_processes(job)
    for parent in task.parents():
        if parent.name() == "slurmstepd":
            parent.kill()
    cluster.kill_daemon(f"slurmd.{node}")
    wait_for(lambda: any(p.pid != task.pid for p in cluster.job_processes(job)), cluster.queue)
    barrier.open()
    output = wait_for_sweep(sweep)
    cluster.up()
    assert sweep.returncode == 0, output
    assert results_by_point(run) == undisturbed
    last = progress.claim()
    assert (last["attempts"], last["token"]) == (1, first["token"])
