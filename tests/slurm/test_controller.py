"""No point is lost or measured twice if slurmctld or sbatch fails, or without accounting."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

from tests.barrier import Barrier, alive, wait_for
from tests.slurm.conftest import Cluster
from tests.slurm.test_sweeps import WITH_BARRIER, attempts, measure_locally, submissions, write_spec
from tests.sweeps import finish_with_status, results_by_point


def check_attempts(run: Path, points: int, running: int) -> None:
    """Check that only tasks that ran when slurmctld was killed may have been started again.

    A killed slurmctld may lose the last seconds of its state. It then ends tasks that it no longer
    knows and starts them again, and each claims its point a second time.
    """
    counts = attempts(run)
    assert len(counts) == points
    assert set(counts) <= {1, 2}
    assert sum(counts) <= points + running


def test_arrays_of_four_tasks_keep_the_throttle(small_cluster: Cluster, tmp_path: Path) -> None:
    """Without accounting; running tasks are counted with squeue."""
    spec = write_spec(tmp_path, "  seed: [0, 1, 2, 3, 4]\n", WITH_BARRIER)
    profile = small_cluster.profile(tmp_path, throttle=3)
    barrier = Barrier(tmp_path)
    barrier.hold(1)
    sweep = small_cluster.sweep(spec, profile)
    barrier.wait(3, sweep)
    max_running = small_cluster.running()
    barrier.open()
    while sweep.poll() is None:
        max_running = max(max_running, small_cluster.running())
        with contextlib.suppress(subprocess.TimeoutExpired):
            sweep.wait(0.3)
    finish_with_status(sweep)
    run = tmp_path / "runs" / "quick"
    assert [array["tasks"] for array in submissions(run)] == [4, 1]
    assert max_running == 3
    assert attempts(run) == [1] * 5
    assert results_by_point(run) == measure_locally(spec)


FAULTY_SBATCH = """\
#!/bin/bash
# Call 1: the job is accepted, but the answer is lost. Call 2: slurmctld is killed first.
call=$(($(cat {count} 2>/dev/null || echo 0) + 1))
echo $call > {count}
if [ $call = 1 ]; then
  {sbatch} "$@" > /dev/null
  echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2
  exit 1
fi
[ $call != 2 ] || kill -9 $(cat {pid})
{sbatch} "$@"
status=$?
[ $status = 0 ] || touch {count}.failed
exit $status
"""


def test_a_failing_sbatch_submits_every_point_once(small_cluster: Cluster, tmp_path: Path) -> None:
    spec = write_spec(tmp_path, "  seed: [0, 1, 2, 3, 4]\n")
    folder, count = tmp_path / "bin", tmp_path / "count"
    folder.mkdir()
    sbatch = shutil.which("sbatch")
    pid_file = small_cluster.root / "run" / "slurmctld.pid"
    (folder / "sbatch").write_text(FAULTY_SBATCH.format(count=count, sbatch=sbatch, pid=pid_file))
    (folder / "sbatch").chmod(0o755)
    profile = small_cluster.profile(tmp_path, throttle=2)
    pid = small_cluster.pid("slurmctld")
    sweep = small_cluster.sweep(spec, profile, PATH=f"{folder}:{os.environ['PATH']}")
    wait_for(lambda: not alive(pid), "the end of slurmctld")
    wait_for(lambda: count.with_name("count.failed").exists(), "a failing sbatch")
    small_cluster.up()
    finish_with_status(sweep)
    run = tmp_path / "runs" / "quick"
    assert [array["tasks"] for array in submissions(run)] == [4, 1]
    assert int(count.read_text()) >= 2
    assert len({array["job"] for array in submissions(run)}) == 2
    check_attempts(run, points=5, running=2)
    assert results_by_point(run) == measure_locally(spec)


def test_a_sweep_continues_after_slurmctld_is_killed(
    small_cluster: Cluster, tmp_path: Path
) -> None:
    spec = write_spec(tmp_path, "  seed: [0, 1, 2]\n", WITH_BARRIER)
    profile = small_cluster.profile(tmp_path, throttle=2, processes_per_node=2)
    barrier = Barrier(tmp_path)
    barrier.hold(3)
    sweep = small_cluster.sweep(spec, profile)
    run = tmp_path / "runs" / "quick"
    barrier.wait(4, sweep)
    small_cluster.kill_daemon("slurmctld")
    status = small_cluster.flexhpc(tmp_path, "status", run)
    assert "SLURM does not respond" in status.stderr
    assert "running" in status.stdout
    assert any("SLURM does not respond" in line for line in sweep.stdout)
    small_cluster.up()
    barrier.open()
    finish_with_status(sweep)
    assert len(submissions(run)) == 1
    check_attempts(run, points=3, running=2)
    assert results_by_point(run) == measure_locally(spec)
