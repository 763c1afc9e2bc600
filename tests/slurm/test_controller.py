"""The controller fails, sbatch lies, there is no accounting: nothing is lost or doubled."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from pathlib import Path

from tests.barrier import Barrier, alive, wait_for
from tests.slurm.conftest import Cluster, ended
from tests.slurm.test_sweeps import GATED, locally, submissions, write_spec
from tests.sweeps import contents


def attempts(run: Path) -> list[int]:
    return [json.loads(path.read_text())["attempts"] for path in run.glob("points/*/*.claim.json")]


def check_attempts(run: Path, points: int, running: int) -> None:
    """Check that only tasks running when the controller died may have been started anew.

    A killed controller may have lost the last seconds of its state. It then ends tasks that it no
    longer knows and starts them again, and each claims its point a second time.
    """
    found = attempts(run)
    assert len(found) == points
    assert set(found) <= {1, 2}
    assert sum(found) <= points + running


def test_points_in_arrays_of_four_keep_the_throttle(small_cluster: Cluster, tmp_path: Path) -> None:
    """Without accounting; the throttle is counted while they run."""
    spec = write_spec(tmp_path, "  seed: [0, 1, 2, 3, 4]\n", GATED)
    profile = small_cluster.profile(tmp_path, throttle=3)
    barrier = Barrier(tmp_path)
    barrier.hold(1)
    sweep = small_cluster.sweep(spec, profile)
    barrier.wait(3, sweep)
    most = small_cluster.running()
    barrier.open()
    while sweep.poll() is None:
        most = max(most, small_cluster.running())
        with contextlib.suppress(subprocess.TimeoutExpired):
            sweep.wait(0.3)
    ended(sweep)
    run = tmp_path / "runs" / "quick"
    assert [array["tasks"] for array in submissions(run)] == [4, 1]
    assert most == 3
    assert attempts(run) == [1] * 5
    assert contents(run) == locally(spec)


def until_printed(sweep: subprocess.Popen[str], text: str) -> None:
    """Read what a sweep prints until a line has this text."""
    assert any(text in line for line in sweep.stdout), f"it ended without: {text}"


LYING_SBATCH = """\
#!/bin/bash
# Call 1: the job is accepted, but the answer gets lost. Call 2: the controller dies first.
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


def test_submission_is_disturbed(small_cluster: Cluster, tmp_path: Path) -> None:
    spec = write_spec(tmp_path, "  seed: [0, 1, 2, 3, 4]\n")
    tools, count = tmp_path / "bin", tmp_path / "count"
    tools.mkdir()
    real = shutil.which("sbatch")
    pid = small_cluster.root / "run" / "slurmctld.pid"
    (tools / "sbatch").write_text(LYING_SBATCH.format(count=count, sbatch=real, pid=pid))
    (tools / "sbatch").chmod(0o755)
    profile = small_cluster.profile(tmp_path, throttle=2)
    dying = small_cluster.pid("slurmctld")
    path = f"{tools}:{os.environ['PATH']}"
    sweep = small_cluster.sweep(spec, profile, PATH=path)
    wait_for(lambda: not alive(dying), "the end of the controller")
    wait_for(lambda: count.with_name("count.failed").exists(), "an sbatch that fails")
    small_cluster.up()
    ended(sweep)
    run = tmp_path / "runs" / "quick"
    assert [array["tasks"] for array in submissions(run)] == [4, 1]
    assert int(count.read_text()) >= 2
    assert len({array["job"] for array in submissions(run)}) == 2
    check_attempts(run, points=5, running=2)
    assert contents(run) == locally(spec)


def test_the_controller_dies_during_a_run(small_cluster: Cluster, tmp_path: Path) -> None:
    spec = write_spec(tmp_path, "  seed: [0, 1, 2]\n", GATED)
    profile = small_cluster.profile(tmp_path, throttle=2, processes_per_node=2)
    barrier = Barrier(tmp_path)
    barrier.hold(20)
    sweep = small_cluster.sweep(spec, profile)
    run = tmp_path / "runs" / "quick"
    barrier.wait(4, sweep)
    small_cluster.kill_daemon("slurmctld")
    status = small_cluster.flexhpc(tmp_path, "status", str(run))
    assert status.returncode == 0
    assert "SLURM does not respond" in status.stderr
    assert "running" in status.stdout
    until_printed(sweep, "SLURM does not respond")
    small_cluster.up()
    barrier.open()
    ended(sweep)
    assert len(submissions(run)) == 1
    check_attempts(run, points=3, running=2)
    assert contents(run) == locally(spec)
