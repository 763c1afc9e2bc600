"""A suite that is interrupted leaves nothing running."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import psutil
import pytest

from tests import reaper
from tests.barrier import wait_for
from tests.conftest import FLEXHPC, REPOSITORY, SMALL
from tests.slurm.conftest import needs_slurm, port_of, root_of

MARK = "FLEXHPC_TEST_OF_REAPER"
LONG = SMALL.replace("epochs: 120", "epochs: 100000, gates: {plateau: off}")
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
cluster.ask("sbatch", "--output=/dev/null", "--chdir", sys.argv[1], "--wrap", "sleep 1000")
time.sleep(1000)
"""


def marked(mark: str) -> list[list[str]]:
    """The command lines of all processes that have the mark, those that end meanwhile left out."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark:
                found.append(process.cmdline())
    return found


@pytest.mark.sweeps
def test_what_a_test_process_started_ends_with_it(tmp_path: Path) -> None:
    mark, server = uuid.uuid4().hex, "flexhpc.worker.fork_server"
    (tmp_path / "spec.yaml").write_text(LONG)
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS, str(FLEXHPC)], cwd=tmp_path, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, MARK: mark, "PYTHONPATH": str(REPOSITORY)},
    ) as test:  # fmt: skip
        try:
            wait_for(lambda: sum(server in line for line in marked(mark)) > 1, "a worker")
        finally:
            test.kill()
            test.wait()
        wait_for(lambda: not marked(mark), "the end of all processes")


@pytest.mark.slurm
def test_so_does_a_cluster_with_its_jobs() -> None:
    """The daemons of a job's steps are no children of their node's, and have no environment."""
    needs_slurm()
    root = root_of("reaped")
    folder = {str(root / "log")}
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER, str(root), str(port_of(2))], stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    ) as test:  # fmt: skip
        try:
            wait_for(lambda: reaper.steps_in(folder), "a running job")
            test.terminate()
            test.wait()
        finally:
            test.kill()
        wait_for(lambda: not working_in(root), "the end of all processes")
    shutil.rmtree(root)


def working_in(root: Path) -> list[str]:
    """The names of all processes that work below a folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if Path(process.cwd()).is_relative_to(root):
                found.append(process.name())
    return found
