"""Real SLURM clusters on this host, one per test process, beside any that the user has running."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import yaml

from tests.barrier import alive, wait_for
from tests.command import flexhpc
from tests.conftest import FLEXHPC, REPOSITORY

DEVCLUSTER = REPOSITORY / "hpc" / "devcluster"


@dataclass
class Cluster:
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
        done = subprocess.run(
            [str(DEVCLUSTER / command[0]), *command[1:]], env=environment,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    def ask(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    def queue(self) -> list[list[str]]:
        """Array job, index, state, node, job id, name of everything in the queue."""
        printed = self.ask("squeue", "--noheader", "--array", "--format=%F|%K|%T|%N|%A|%j")
        return [line.strip().split("|") for line in printed.splitlines()]

    def running(self) -> int:
        return sum(row[2] == "RUNNING" for row in self.queue())

    def nodes(self) -> dict[str, str]:
        """Node -> its state, as ``down*``. Of all: asked for one, sinfo once kept an old answer."""
        printed = self.ask("sinfo", "--noheader", "--Node", "--format=%N %T")
        return dict(line.split() for line in printed.splitlines())

    def profile(self, folder: Path, **keys: object) -> Path:
        path = folder / "profile.yaml"
        given = {"cluster": "slurm", "partition": "main", "mem_gb": 1, "tracking_uri": "none"}
        path.write_text(yaml.safe_dump({**given, **keys}))
        return path

    def sweep(self, spec: Path, profile: Path, *more: str, **extra: str) -> subprocess.Popen[str]:
        started = subprocess.Popen(
            [str(FLEXHPC), "sweep", str(spec), "--profile", str(profile), *more], cwd=spec.parent,
            env={**self.environment, **extra}, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.sweeps.append(started)
        return started

    def flexhpc(self, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        return flexhpc(folder, *arguments, environment=self.environment)

    def pid(self, daemon: str) -> int:
        return int((self.root / "run" / f"{daemon}.pid").read_text())

    def kill_daemon(self, daemon: str) -> None:
        """Kill one of our daemons as a crash would."""
        pid = self.pid(daemon)
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not alive(pid), f"the end of {daemon}")

    def job_processes(self, job: str) -> list[psutil.Process]:
        """Return the Python processes of a job, in order of rank and start."""
        found = []
        for process in psutil.process_iter():
            try:
                environment = process.environ()
                python = process.cmdline()[1:4] == ["-u", "-m", "submitit.core._submit"]
            except psutil.Error:
                continue
            mine = environment.get("SLURM_CONF") == self.environment["SLURM_CONF"]
            if python and mine and environment.get("SLURM_JOB_ID") == job:
                found.append((int(environment["SLURM_PROCID"]), process.create_time(), process))
        return [process for _, _, process in sorted(found, key=lambda one: one[:2])]

    def kill_node(self, node: str) -> None:
        """Kill a node's slurmd and everything that runs there."""
        slurmd = psutil.Process(self.pid(f"slurmd.{node}"))
        mine = [
            process
            for process in psutil.process_iter()
            if _is_on(process, node, self.environment["SLURM_CONF"])
        ]
        for process in [slurmd, *mine]:
            try:
                process.kill()
            except psutil.Error:
                continue
        wait_for(lambda: not alive(slurmd.pid), f"the end of node {node}")


def _is_on(process: psutil.Process, node: str, conf: str) -> bool:
    try:
        environment = process.environ()
        stepd = process.name() == "slurmstepd"
        here = environment.get("SLURMD_NODENAME") == node and environment.get("SLURM_CONF") == conf
        return here or (stepd and any(_is_on(c, node, conf) for c in process.children()))
    except psutil.Error:
        return False


def ended(sweep: subprocess.Popen[str], status: int = 0) -> str:
    """Wait for a sweep to end with an exit status; return what it printed."""
    output = finish(sweep)
    assert sweep.returncode == status, output
    return output


def finish(sweep: subprocess.Popen[str], seconds: float = 500.0) -> str:
    """Wait for a sweep to end; return what it said."""
    try:
        output, _ = sweep.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        sweep.kill()
        output, _ = sweep.communicate()
    return output


def root_of(name: str) -> Path:
    return Path(f"/var/lib/flexhpc-test-{_worker()}-{name}")


def port_of(number: int) -> int:
    """Return the first port of the cluster of this number, of this test process."""
    return 17_000 + 200 * int(_worker()[2:]) + 40 * number


def _worker() -> str:
    return os.environ.get("PYTEST_XDIST_WORKER", "gw9")  # never that of a run with xdist


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
    """Return why no devcluster can be started here; empty if one can."""
    installed = subprocess.run(
        [str(DEVCLUSTER / "packages.sh"), "--check"], capture_output=True, text=True, check=False
    )
    if installed.returncode or os.geteuid() != 0:
        return installed.stderr.strip() or "only root can start a devcluster"
    return ""


def needs_slurm() -> None:
    if reason := no_slurm():
        if os.environ.get("CI"):
            pytest.fail(f"the SLURM tests must run here: {reason}")
        pytest.skip(reason)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Four nodes, with accounting."""
    needs_slurm()
    with running_cluster("main", 0) as found:
        yield found


@pytest.fixture(scope="session")
def small_cluster() -> Iterator[Cluster]:
    """Arrays of at most four tasks, and no accounting."""
    needs_slurm()
    with running_cluster("small", 1, MAX_ARRAY="4", ACCOUNTING="0", NODES="2") as found:
        yield found


@pytest.fixture(autouse=True)
def _empty_queue(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave nothing in the queue for the next test."""
    yield
    for name in ("cluster", "small_cluster"):
        if name in request.fixturenames:
            found: Cluster = request.getfixturevalue(name)
            for sweep in found.sweeps:
                finish(sweep, seconds=0)
            found.sweeps.clear()
            found.ask("scancel", "--user=root", check=False)
            wait_for(lambda cluster=found: not cluster.queue(), "an empty queue")
