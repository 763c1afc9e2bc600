"""Submit, follow, cancel and resume sweeps on a real SLURM."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from pathlib import Path

from tests.barrier import Barrier, wait_for
from tests.slurm.conftest import Cluster
from tests.slurm.test_sweeps import WITH_BARRIER, attempts, measure_locally, submissions, write_spec
from tests.speeds import BUDGET
from tests.sweeps import finish_with_status, probes_in, results_by_point

FIRST_PROBE = 240 // int(os.environ.get(BUDGET, "1")) + 10
"""Forward passes: 4 shards in the 60 epochs of the first probe, and 10 in the second probe."""


def states(cluster: Cluster, run: Path) -> list[str]:
    output = cluster.flexhpc(run.parent, "status", run, "--json").stdout
    return [row["state"] for row in json.loads(output)]


def test_a_cancelled_sweep_is_resumed(cluster: Cluster, tmp_path: Path) -> None:
    spec = write_spec(tmp_path, "  seed: [0, 1, 2]\n", WITH_BARRIER)
    profile = cluster.profile(tmp_path, throttle=2)
    barrier = Barrier(tmp_path)
    barrier.hold(FIRST_PROBE)
    sweep = cluster.sweep(spec, profile)
    run = tmp_path / "runs" / "quick"
    barrier.wait(2, sweep)
    assert len(probes_in(run)) >= 2
    assert states(cluster, run).count("queued") == 1
    barrier.continue_slowly()
    cancelled = cluster.flexhpc(tmp_path, "cancel", run)
    assert "tasks removed from the queue" in cancelled.stdout
    assert not cluster.queue()
    finish_with_status(sweep, 130)
    assert len(probes_in(run)) >= 2
    barrier.open()
    finish_with_status(cluster.sweep(spec, profile))
    assert results_by_point(run) == measure_locally(spec)


def test_jobs_continue_after_ctrl_c(cluster: Cluster, tmp_path: Path) -> None:
    spec = write_spec(tmp_path, "  seed: [0, 1]\n", WITH_BARRIER)
    profile = cluster.profile(tmp_path)
    barrier = Barrier(tmp_path)
    barrier.hold(FIRST_PROBE)
    sweep = cluster.sweep(spec, profile)
    run = tmp_path / "runs" / "quick"
    barrier.wait(2, sweep)
    sweep.send_signal(signal.SIGINT)
    assert "the jobs continue" in finish_with_status(sweep, 130)
    assert len(cluster.queue()) == 2
    sweeps = [cluster.sweep(spec, profile) for _ in range(2)]
    barrier.open()
    for sweep in sweeps:
        finish_with_status(sweep)
    assert len(submissions(run)) == 1
    assert attempts(run) == [1, 1]


def test_a_detached_sweep_reports_its_job(cluster: Cluster, tmp_path: Path) -> None:
    """The key ``python`` of the profile may be a command with arguments."""
    spec = write_spec(tmp_path, "  seed: [0, 1]\n")
    profile = cluster.profile(tmp_path, python=f"env MARK=1 {sys.executable}")
    result = cluster.flexhpc(tmp_path, "sweep", spec, "--profile", profile, "--detach")
    run = tmp_path / "runs" / "quick"
    (script,) = run.glob("jobs/*/array-000/array.sh")
    assert f"env MARK=1 {sys.executable} -P -u -m submitit" in script.read_text()
    (array,) = submissions(run)
    assert f"2 tasks submitted as job {array['job']}" in result.stdout
    wait_for(lambda: states(cluster, run) == ["done", "done"], "the end of both tasks")
    assert "probes logged" in cluster.flexhpc(tmp_path, "sync", run).stdout


def test_a_task_that_fails_in_setup_is_submitted_twice(cluster: Cluster, tmp_path: Path) -> None:
    spec = write_spec(tmp_path, "  seed: [0]\n")
    profile = cluster.profile(tmp_path, setup=["echo no such module >&2", "exit 3"])
    sweep = cluster.sweep(spec, profile)
    output = finish_with_status(sweep, 1)
    assert "its worker ended without a result" in output
    assert "| no such module" in output
    assert len(submissions(tmp_path / "runs" / "quick")) == 2


def test_rejected_submissions_are_one_line_errors(cluster: Cluster, tmp_path: Path) -> None:
    """SLURM rejects the job, or the job would start a different Python."""
    spec = write_spec(tmp_path, "  seed: [0]\n")
    other = tmp_path / "python"
    other.write_text("#!/bin/sh\necho 3.99 0.0.1\n")
    other.chmod(0o755)
    for keys, messages in (
        ({"partition": "nowhere"}, ("SLURM rejected the job: sbatch: error:", "partition")),
        ({"python": str(other)}, ("has Python 3.99 with flexhpc 0.0.1",)),
    ):
        profile = cluster.profile(tmp_path, **keys)
        result = cluster.flexhpc(tmp_path, "sweep", spec, "--profile", profile, status=2)
        assert all(message in result.stderr for message in messages), result.stderr
        assert not list((tmp_path / "runs").rglob("array.json"))
        assert not cluster.queue()


def test_a_dry_run_only_prints_the_batch_script(cluster: Cluster, tmp_path: Path) -> None:
    spec = write_spec(tmp_path, "  seed: [0, 1, 2, 3]\n")
    profile = cluster.profile(
        tmp_path, nodes=2, processes_per_node=2, gpus_per_node=1, throttle=1, time="1-00:00:00",
        sbatch={"mail-type": "FAIL"}, setup=["export FLEXHPC_DATA=/data"], points_per_task=2,
    )  # fmt: skip
    result = cluster.flexhpc(tmp_path, "sweep", spec, "--profile", profile, "--dry-run")
    script = result.stdout[result.stdout.index("#!/bin/bash") :]
    for line in (
        "#SBATCH --array=0-1%1", "#SBATCH --nodes=2", "#SBATCH --ntasks-per-node=2",
        "#SBATCH --gpus-per-node=1", "#SBATCH --time=1440", "#SBATCH --mail-type=FAIL",
        "#SBATCH --signal=USR2@90", "#SBATCH --requeue", "#SBATCH --mem=1024M",
        "export FLEXHPC_DATA=/data",
        'export FLEXHPC_DEADLINE=$(( $(date +%s) + 86400 ))',
    ):  # fmt: skip
        assert line in script.splitlines()
    assert not (tmp_path / "runs").exists()
    assert "\n#!/bin/bash" not in script, "several arrays"
    cluster.flexhpc(tmp_path, "sweep", spec, "--profile", profile, "--detach")
    (submitted,) = (tmp_path / "runs").glob("*/jobs/*/array-000/array.sh")
    assert _without_ids(script) == _without_ids(submitted.read_text())


def _without_ids(script: str) -> list[str]:
    """Return the lines of a batch script; replace the ids of the launch and of the job."""
    script = re.sub(r"jobs/[0-9-]+/", "jobs/LAUNCH/", script)
    return re.sub(r"job-name=flexhpc-quick-\w+", "job-name=NAME", script).splitlines()


def test_two_sweeps_at_once_submit_every_point_once(cluster: Cluster, tmp_path: Path) -> None:
    spec = write_spec(tmp_path, "  seed: [0, 1, 2]\n")
    profile = cluster.profile(tmp_path, throttle=2)
    sweeps = [cluster.sweep(spec, profile) for _ in range(2)]
    for sweep in sweeps:
        finish_with_status(sweep)
    run = tmp_path / "runs" / "quick"
    assert [array["tasks"] for array in submissions(run)] == [3]
    assert attempts(run) == [1] * 3


def test_a_detached_sweep_fails_if_slurm_does_not_respond(cluster: Cluster, tmp_path: Path) -> None:
    spec = write_spec(tmp_path, "  seed: [0]\n")
    profile = cluster.profile(tmp_path)
    os.kill(cluster.pid("slurmctld"), signal.SIGSTOP)
    try:
        result = cluster.flexhpc(
            tmp_path, "sweep", spec, "--profile", profile, "--detach", status=1
        )
    finally:
        os.kill(cluster.pid("slurmctld"), signal.SIGCONT)
    assert "SLURM does not respond" in result.stderr
    assert "run the same command again to submit them" in result.stderr
