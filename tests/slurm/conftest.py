"""Real SLURM clusters on this host, for each test process, separate from clusters of the user."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import yaml

from tests.barrier import alive, wait_for
from tests.command import run_flexhpc
from tests.conftest import REPOSITORY
from tests.sweeps import start_command, wait_for_sweep

DEVCLUSTER = REPOSITORY / "hpc" / "devcluster"


@dataclass
class Cluster:
    """A devcluster.

    Attributes:
        root: folder of the cluster.
        settings: environment variables of hpc/devcluster/up.sh.
        environment: environment variables of commands that use the cluster.
        sweeps: sweeps that were started.
    """

    root: Path
    settings: dict[str, str]
    environment: dict[str, str] = field(init=False)
    sweeps: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        conf = str(self.root / "etc" / "slurm.conf")
        self.environment = {**os.environ, "SLURM_CONF": conf, "COLUMNS": "200"}

    def up(self) -> None:
        self._devcluster("up.sh", "--quiet")

    def down(self) -> None:
        self._devcluster("down.sh", "--wipe")

    def _devcluster(self, *command: str) -> None:
        environment = {**os.environ, **self.settings, "DEVCLUSTER_ROOT": str(self.root)}
        result = subprocess.run(
            [str(DEVCLUSTER / command[0]), *command[1:]], env=environment,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert result.returncode == 0, result.stdout + result.stderr

    def run(self, *command: str, check: bool = True) -> str:
        result = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False
        )
        assert not check or result.returncode == 0, result.stderr
        return result.stdout

    def queue(self) -> list[list[str]]:
        """Return array job, index, state, node, job id and name of each task in the queue."""
        output = self.run("squeue", "--noheader", "--array", "--format=%F|%K|%T|%N|%A|%j")
        return [line.strip().split("|") for line in output.splitlines()]

    def running(self) -> int:
        return sum(row[2] == "RUNNING" for row in self.queue())

    def nodes(self) -> dict[str, str]:
        """Return the state of each node, such as ``down*``."""
        # The state of a single node (`sinfo --nodes`) was outdated once.
        output = self.run("sinfo", "--noheader", "--Node", "--format=%N %T")
        return dict(line.split() for line in output.splitlines())

    def profile(self, folder: Path, **keys: object) -> Path:
        path = folder / "profile.yaml"
        common = {"cluster": "slurm", "partition": "main", "mem_gb": 1, "tracking_uri": "none"}
        path.write_text(yaml.safe_dump({**common, **keys}))
        return path

    def sweep(self, spec: Path, profile: Path, **environment: str) -> subprocess.Popen[str]:
        sweep = start_command(spec, profile, {**self.environment, **environment})
        self.sweeps.append(sweep)
        return sweep

    def flexhpc(
        self, folder: Path, *arguments: object, status: int = 0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the process of the test; check its exit status."""
        result = run_flexhpc(folder, *arguments, environment=self.environment)
        assert result.returncode == status, result.stdout + result.stderr
        assert "Traceback" not in result.stderr, result.stderr
        return result

    def pid(self, daemon: str) -> int:
        return int((self.root / "run" / f"{daemon}.pid").read_text())

    def kill_daemon(self, daemon: str) -> None:
        """Kill a daemon of the cluster with SIGKILL."""
        pid = self.pid(daemon)
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not alive(pid), f"the end of {daemon}")

    def job_processes(self, job: str) -> list[psutil.Process]:
        """Return the Python processes of a job, in order of rank and start."""
        ranks = []
        for process in psutil.process_iter():
            try:
                environment = process.environ()
                python = process.cmdline()[1:5] == ["-P", "-u", "-m", "submitit.core._submit"]
            except psutil.Error:
                continue
            on_cluster = environment.get("SLURM_CONF") == self.environment["SLURM_CONF"]
            if python and on_cluster and environment.get("SLURM_JOB_ID") == job:
                ranks.append((int(environment["SLURM_PROCID"]), process.create_time(), process))
        return [process for _, _, process in sorted(ranks, key=lambda rank: rank[:2])]

    def kill_node(self, node: str) -> None:
        """Kill slurmd of a node and all processes on the node."""
        slurmd, conf = psutil.Process(self.pid(f"slurmd.{node}")), self.environment["SLURM_CONF"]
        for process in [slurmd, *(p for p in psutil.process_iter() if _is_on(p, node, conf))]:
            with suppress(psutil.Error):
                process.kill()
        wait_for(lambda: not alive(slurmd.pid), f"the end of node {node}")


def _is_on(process: psutil.Process, node: str, conf: str) -> bool:
    with suppress(psutil.Error):
        environment = process.environ()
        if environment.get("SLURMD_NODENAME") == node and environment.get("SLURM_CONF") == conf:
            return True
        is_stepd = process.name() == "slurmstepd"
        return is_stepd and any(_is_on(child, node, conf) for child in process.children())
    return False


def root_of(name: str) -> Path:
    return Path(f"/var/lib/flexhpc-test-{_worker()}-{name}")


def port_of(number: int) -> int:
    """Return the first port of the cluster with this number in this test process."""
    return 17_000 + 200 * int(_worker()[2:]) + 40 * number


def _worker() -> str:
    return os.environ.get("PYTEST_XDIST_WORKER", "gw9")  # gw9: not used by xdist here


@contextmanager
def running_cluster(name: str, number: int, **settings: str) -> Iterator[Cluster]:
    cluster = Cluster(root_of(name), {"PORT": str(port_of(number)), **settings})
    cluster.down()
    cluster.up()
    try:
        yield cluster
    finally:
        cluster.down()


def no_slurm() -> str:
    """Return why a devcluster cannot be started on this machine; empty if it can."""
    installed = subprocess.run(
        [str(DEVCLUSTER / "packages.sh"), "--check"], capture_output=True, text=True, check=False
    )
    if installed.returncode or os.geteuid() != 0:
        return installed.stderr.strip() or "only root can start a devcluster"
    return ""


def needs_slurm() -> None:
    if reason := no_slurm():
        if os.environ.get("CI"):
            pytest.fail(f"the SLURM tests must run in CI: {reason}")
        pytest.skip(reason)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Four nodes, with accounting."""
    needs_slurm()
    with running_cluster("main", 0) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def small_cluster() -> Iterator[Cluster]:
    """Arrays of at most four tasks, and no accounting."""
    needs_slurm()
    with running_cluster("small", 1, MAX_ARRAY="4", ACCOUNTING="0", NODES="2") as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def _empty_queue(request: pytest.FixtureRequest) -> Iterator[None]:
    """Kill the sweeps of a test, and empty the queue for the next test."""
    yield
    for name in {"cluster", "small_cluster"} & {*request.fixturenames}:
        cluster: Cluster = request.getfixturevalue(name)
        for sweep in cluster.sweeps:
            wait_for_sweep(sweep, seconds=0)
        cluster.sweeps.clear()
        cluster.run("scancel", "--user=root", check=False)
        wait_for(lambda cluster=cluster: not cluster.queue(), "an empty queue")
