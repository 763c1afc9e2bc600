"""An interrupted test process leaves no processes running (tests/reaper.py)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import reaper
from tests.barrier import wait_for
from tests.conftest import FLEXHPC, REPOSITORY, SMALL_SPEC, processes_in
from tests.slurm.conftest import needs_slurm, port_of, root_of

LONG = SMALL_SPEC.replace("epochs: 120", "epochs: 100000, gates: {plateau: off}")
ENDLESS = """
import subprocess, sys, time
from tests import reaper
reaper.start()
subprocess.Popen([sys.argv[1], "sweep", "spec.yaml"], start_new_session=True)
time.sleep(1000)
"""

CLUSTER = """
import sys, time
from pathlib import Path
from tests import reaper
reaper.start()
from tests.slurm.conftest import Cluster
cluster = Cluster(Path(sys.argv[1]), {"PORT": sys.argv[2], "NODES": "1", "ACCOUNTING": "0"})
cluster.down()
cluster.up()
cluster.run("sbatch", "--output=/dev/null", "--chdir", sys.argv[1], "--wrap", "sleep 1000")
time.sleep(1000)
"""
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY)}


@pytest.mark.sweeps
def test_sweeps_end_with_the_test_process(tmp_path: Path) -> None:
    server = "flexhpc.worker.fork_server"
    (tmp_path / "spec.yaml").write_text(LONG)
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS, str(FLEXHPC)], cwd=tmp_path, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, env=ENVIRONMENT,
    ) as test:  # fmt: skip
        try:
            wait_for(lambda: sum(server in c for c in processes_in(tmp_path)) > 1, "a worker")
        finally:
            test.kill()
            test.wait()
        wait_for(lambda: not list(processes_in(tmp_path)), "the end of all processes")


@pytest.mark.slurm
def test_clusters_end_with_the_test_process() -> None:
    """slurmstepd is not a child of slurmd, and overwrites its environment."""
    needs_slurm()
    root = root_of("reaped")
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER, str(root), str(port_of(2))], stdout=subprocess.DEVNULL,
        env=ENVIRONMENT,
    ) as test:  # fmt: skip
        try:
            wait_for(lambda: reaper.steps_in({str(root / "log")}), "a running job")
            test.terminate()
            test.wait()
        finally:
            test.kill()
        wait_for(lambda: not list(processes_in(root)), "the end of all processes")
    shutil.rmtree(root)
