"""Wrappers around SLURM commands that do not require accounting (slurmdbd)."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from flexhpc.errors import InputError
from flexhpc.versions import python_version, source_hash

_TIMEOUT = 30.0  # seconds
_START_TIMEOUT = 600.0
"""Timeout in seconds for starting a container, whose image may first have to be unpacked."""
DEFAULT_MAX_ARRAY_SIZE = 1_001
"""SLURM's default value of MaxArraySize."""
_JOB_ID = re.compile(r"\bjob (\d+)")


class SlurmUnavailable(Exception):
    """The SLURM controller did not respond, so the state of the queue is unknown."""


class SubmissionRejected(Exception):
    """SLURM rejected a submission."""


class QueuedTask(NamedTuple):
    """An array task in the queue.

    Attributes:
        state: SLURM job state, for example ``PENDING`` or ``RUNNING``.
        reason: SLURM's reason why the task is pending.
    """

    state: str
    reason: str


class Queue(NamedTuple):
    """The user's flexhpc jobs that are queued or running.

    SLURM may reuse a job id, but job names are unique.

    Attributes:
        tasks: mapping from (job name, task index) to the task.
        jobs: mapping from job name to array job id.
    """

    tasks: Mapping[tuple[str, int], QueuedTask]
    jobs: Mapping[str, str]


class Slurm:
    """Access to a SLURM cluster.

    Args:
        conf: path of the cluster's slurm.conf; None to use the environment variable SLURM_CONF or,
            if this variable is not set, the system default.

    Attributes:
        conf: path of the slurm.conf in use; None for the system default.
    """

    def __init__(self, conf: str | None = None) -> None:
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("SQUEUE_")}
        if conf is not None:
            self.environment["SLURM_CONF"] = conf
        self.conf = self.environment.get("SLURM_CONF")

    @classmethod
    def with_conf(cls, conf: str | None) -> Slurm:
        """Return a :class:`Slurm` for the cluster that a profile selects.

        Args:
            conf: value of the profile key ``slurm_conf``; the environment variable SLURM_CONF takes
                precedence.
        """
        return cls(os.environ.get("SLURM_CONF") or conf)

    def check_available(self) -> None:
        """Check that jobs can be submitted from this machine.

        Raises:
            InputError: SLURM is not installed here, or its configuration file does not exist.
        """
        if shutil.which("sbatch") is None or shutil.which("srun") is None:
            raise InputError(
                "profile: cluster: slurm needs sbatch and srun, which this machine does not have; "
                "use a login node (docs/slurm.md shows how to start a small test cluster)"
            )
        if self.conf is not None and not Path(self.conf).is_file():
            raise InputError(
                f"profile: {self.conf}: file not found; correct slurm_conf, or the environment "
                "variable SLURM_CONF if it is set"
            )

    def check_python(self, command: str, setting: str, advice: str, *, must_start: bool) -> None:
        """Check that tasks use the same versions of Python and flexhpc as this process.

        Args:
            command: shell command that starts Python in a task.
            setting: profile setting to name in error messages, such as ``python``.
            advice: how to make the versions equal, for the end of the error message.
            must_start: whether it is an error if Python does not start on this machine. If False,
                such a failure is ignored, because Python may be installed only on compute nodes.

        Raises:
            InputError: the version of Python or flexhpc differs, or ``must_start`` is True and
                Python does not start.
        """
        lines, reason = [], ""
        try:
            timeout = _START_TIMEOUT if must_start else _TIMEOUT
            result = self._run(["bash", "-c", f"{command} -c {shlex.quote(_VERSIONS)}"], timeout)
        except SlurmUnavailable as error:
            reason = str(error)
        else:
            lines = result.stdout.splitlines()
            if result.returncode or not lines:
                reason = " ".join(result.stderr.split()) or f"exit status {result.returncode}"
        if reason:
            if must_start:
                raise InputError(f"profile: {setting}: failed to start: {reason[:600]}")
            return
        versions = lines[-1].split()
        expected = [python_version(), version("flexhpc"), source_hash()]
        if versions != expected:
            raise InputError(
                f"profile: {setting}: has {_versions_text(versions)}, but this process has "
                f"{_versions_text(expected)}; {advice}"
            )

    def max_array_size(self) -> int:
        """Return the maximum number of tasks that the cluster allows in one array.

        This is the smaller of MaxArraySize and max_array_tasks in the SLURM configuration.

        Raises:
            SlurmUnavailable: the controller does not respond.
            InputError: the cluster does not accept array jobs.
        """
        config = self._run_checked(["scontrol", "show", "config"])
        limits = re.findall(r"(?:MaxArraySize\s*=|\bmax_array_tasks=)\s*(\d+)", config)
        size = min(map(int, limits), default=DEFAULT_MAX_ARRAY_SIZE)
        if size < 1:
            raise InputError(
                "flexhpc needs array jobs, which this cluster does not accept; ask its "
                "administrator to allow them (MaxArraySize in slurm.conf)"
            )
        return size

    def query_queue(self) -> Queue:
        """Return the user's flexhpc tasks in the queue.

        Raises:
            SlurmUnavailable: the controller does not respond.
        """
        columns = "--format=%F|%K|%T|%r|%j"
        command = ["squeue", "--noheader", "--array", "--user", str(os.getuid()), columns]
        tasks: dict[tuple[str, int], QueuedTask] = {}
        jobs: dict[str, str] = {}
        for line in self._run_checked(command).splitlines():
            parts = line.strip().split("|", 4)
            # On some sites, squeue prints a header line for each cluster.
            if len(parts) == 5 and parts[1].isdecimal() and parts[4].startswith("flexhpc-"):
                array, index, state, reason, name = parts
                tasks[name, int(index)] = QueuedTask(state=state, reason=reason)
                jobs[name] = array
        return Queue(tasks, jobs)

    def submit(self, script: Path) -> str:
        """Submit a batch script; return the job id.

        Raises:
            SlurmUnavailable: it is unknown whether the job was accepted.
            SubmissionRejected: SLURM rejected the job.
        """
        result = self._run(["sbatch", str(script)])
        match = _JOB_ID.search(result.stdout)
        if result.returncode == 0 and match:
            return match[1]
        output = " ".join((result.stderr or result.stdout).split())
        message = output or f"exit status {result.returncode}"
        if any(text in message for text in _TRANSIENT_ERRORS):
            raise SlurmUnavailable(message)
        raise SubmissionRejected(message)

    def release(self, task: str) -> None:
        """Release a task that SLURM holds; ``task`` is ``JOBID_INDEX``.

        Raises:
            SlurmUnavailable: the controller does not respond, or does not permit the release.
        """
        self._run_checked(["scontrol", "release", task])

    def cancel(self, job_ids: Sequence[str], *, pending_only: bool) -> None:
        """Cancel array jobs; with ``pending_only``, cancel only their pending tasks.

        Raises:
            SlurmUnavailable: the controller does not respond.
        """
        for start in range(0, len(job_ids), 500):
            states = ["--state=PENDING"] if pending_only else []
            result = self._run(["scancel", *states, *job_ids[start : start + 500]])
            if result.returncode and "Invalid job id" not in result.stderr:
                raise SlurmUnavailable(" ".join(result.stderr.split()))

    def _run_checked(self, command: list[str]) -> str:
        result = self._run(command)
        if result.returncode:
            reason = result.stderr.strip().rpartition("\n")[2]
            raise SlurmUnavailable(reason or f"{command[0]}: exit status {result.returncode}")
        return result.stdout

    def _run(
        self, command: list[str], timeout: float = _TIMEOUT
    ) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                command, env=self.environment, capture_output=True, text=True, timeout=timeout,
                check=False, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise SlurmUnavailable(f"{command[0]} did not respond within {timeout:.0f} s") from None
        except OSError as error:
            raise SlurmUnavailable(f"{command[0]}: {error.strerror}") from None


_VERSIONS = """
import sys, importlib.metadata as m
sys.path = [path for path in sys.path if path]
try:
    from flexhpc.versions import source_hash as source
except ImportError:
    source = str
try:
    flexhpc = m.version("flexhpc")
except m.PackageNotFoundError:
    flexhpc = "-"
print("%d.%d" % sys.version_info[:2], flexhpc, source())
"""


def _versions_text(versions: Sequence[str]) -> str:
    python, flexhpc, *source = versions
    if flexhpc == "-":
        return f"Python {python} without flexhpc"
    return f"Python {python} with flexhpc {flexhpc} (source {' '.join(source) or 'unknown'})"


_TRANSIENT_ERRORS = (
    "timed out", "nable to contact", "onnect failure", "onnection refused", "onnection reset",
    "tandby", "Zero Bytes", "uthentication", "munge", "try again", "Transport endpoint",
)  # fmt: skip
"""Substrings of sbatch error messages that indicate a temporary failure, such as a timeout."""
