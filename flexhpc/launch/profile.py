"""Profiles, which define where and how a sweep runs; they never affect its results."""

from __future__ import annotations

import math
import re
import shlex
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from flexhpc.config.sections.base import Problems, Section
from flexhpc.config.validation import validate
from flexhpc.config.variants import VariantUnion
from flexhpc.config.yaml_reader import raise_if_problems, read_yaml
from flexhpc.launch.machine import available_cores, visible_gpus
from flexhpc.tracking.state import NO_PASSWORD, has_password

Count = Annotated[int, Field(ge=1, le=100_000)]
Name = Annotated[str, Field(pattern=r"^[^\s'\"]+$")]
Option = Annotated[str, Field(pattern="^-{0,2}[a-zA-Z][a-zA-Z_-]*$")]

_TIME = re.compile(r"(?:(?P<d>\d+)-)?(?P<a>\d+)(?::(?P<b>\d+))?(?::(?P<c>\d+))?")
_MAX_SECONDS = 10 * 366 * 86_400


def time_limit_minutes(time: int | str) -> int:
    """Convert a time limit to minutes, rounded up.

    Args:
        time: minutes, or a string in a format of sbatch: ``MM``, ``MM:SS``, ``HH:MM:SS``,
            ``D-HH``, ``D-HH:MM``, ``D-HH:MM:SS``.

    Raises:
        ValueError: the format is not one of these, or the time is zero or over ten years.
    """
    match = _TIME.fullmatch(str(time))
    if match is None:
        raise ValueError("must be minutes, HH:MM:SS or D-HH:MM:SS")
    days, a, b, c = (int(match[key] or 0) for key in "dabc")
    if match["d"] is None and match["c"] is None:
        seconds = a * 60 + b
    else:
        seconds = days * 86_400 + a * 3600 + b * 60 + c
    if seconds == 0:
        raise ValueError("must be above zero")
    if seconds > _MAX_SECONDS:
        raise ValueError("must be at most ten years")
    return math.ceil(seconds / 60)


def _validate_time_limit(time: int | str) -> int | str:
    time_limit_minutes(time)
    return time


def _check_quotes(line: str) -> str:
    try:
        shlex.split(line)
    except ValueError:
        raise ValueError("has an unclosed quote") from None
    return line


class Profile(Section):
    """Keys common to all profiles; all are optional."""

    cluster: str
    """Where the workers run."""
    processes_per_node: Annotated[int, Field(ge=1, le=1024)] = 1
    """Number of processes per node that train one point together (data parallel); each process uses
    one GPU."""
    cpus_per_process: Count = 1
    """CPU threads of each process; training is very slow if all processes of a machine together
    have more threads than the machine has cores."""
    probes_at_once: Annotated[int, Field(ge=1, le=8)] | None = None
    """Maximum number of probes of one point that train concurrently, if the search plans several
    probes at once (`search.at_once`). Each probe uses `cpus_per_process` threads and one GPU,
    assigned round-robin. The default is 1; with `cluster: local`, it is higher if at least two
    workers could run for each point."""
    tracking_uri: str | None = None
    """URI of the MLflow server; the default is a database in the run folder. With `none`, results
    are logged only by `flexhpc sync`."""
    retries: Annotated[int, Field(ge=0, le=100)] = 2
    """Maximum number of consecutive retries of a point whose worker died without progress."""
    checkpoint_every: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    """Seconds between checkpoints of a probe."""

    def combination_problems(self) -> Problems:
        if has_password(self.tracking_uri):
            yield "tracking_uri", NO_PASSWORD
        several = [key for key in ("nodes", "processes_per_node") if getattr(self, key, 1) != 1]
        if several and self.probes_at_once not in (1, None):
            yield "probes_at_once", f"has no effect with {several[0]} above 1; remove it"


class LocalProfile(Profile):
    """Workers on this machine."""

    cluster: Literal["local"] = "local"
    """Run workers on this machine."""
    workers: Count | None = None
    """Number of workers, each of which measures one point at a time; the default uses all GPUs, or
    all CPU cores if there is no GPU."""

    def workers_and_probes(self, points: int) -> tuple[int, int]:
        """Return the number of workers and the number of concurrent probes per worker.

        Args:
            points: number of points to measure.
        """
        per_worker = self.processes_per_node * (self.probes_at_once or 1)
        slots = len(visible_gpus()) or available_cores()
        workers_max = self.workers or max(1, slots // per_worker)
        workers = min(workers_max, points)
        if self.processes_per_node > 1:
            return workers, 1
        return workers, self.probes_at_once or workers_max // workers


class Container(Section):
    """Container in which the tasks run."""

    runtime: Literal["apptainer", "podman", "docker"]
    """Container runtime, which must be installed on the compute nodes."""
    image: Annotated[str, Field(pattern=r"^[^\s,]+$")]
    """Path of a SIF file for apptainer; name of an image for podman and docker."""
    binds: list[Annotated[str, Field(pattern=r"^/[^\n,]*$")]] = Field(default_factory=list)
    """Folders to bind in addition to the run folder and the data, each in the form `/scratch` or
    `/host/folder:/inside[:ro]`."""
    flags: list[Annotated[str, AfterValidator(_check_quotes)]] = Field(default_factory=list)
    """Additional options for `apptainer exec`, `podman run` or `docker run`."""


class SlurmProfile(Profile):
    """Array jobs on a SLURM cluster."""

    cluster: Literal["slurm"]
    """Submit array jobs to SLURM, from a machine with sbatch and a shared file system."""
    partition: Name | None = None
    """Partition; without this key, the default partition of the cluster is used."""
    account: Name | None = None
    """Account to charge."""
    qos: Name | None = None
    """Quality of service."""
    constraint: str | None = None
    """Required node features, for example `a100|h100`."""
    time: Annotated[int | str, AfterValidator(_validate_time_limit)] | None = None
    """Time limit of a task: minutes, HH:MM:SS or D-HH:MM:SS; a task that needs more time saves
    its state and is requeued."""
    mem_gb: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] | None = None
    """Memory per node in GB; 0 requests all memory of the node."""
    nodes: Annotated[int, Field(ge=1, le=1024)] = 1
    """Number of nodes that train one point together."""
    gpus_per_node: Annotated[int, Field(ge=0, le=1024)] = 0
    """GPUs per node; if a node has fewer GPUs than processes, the processes share the GPUs."""
    throttle: Count | None = None
    """Maximum number of tasks that run at the same time, over all arrays of the sweep; without this
    key, there is no limit."""
    max_array: Count | None = None
    """Maximum number of tasks in one array, for sites that limit the number of jobs per user."""
    points_per_task: Count = 1
    """Number of points that one task measures in sequence; if each point takes little time, a
    higher number reduces the total time in the queue."""
    setup: list[str] = Field(default_factory=list)
    """Shell commands that each task runs before it starts Python, such as `module load cuda` or
    `export FLEXHPC_DATA=/data`."""
    sbatch: dict[Option, str | int | float | bool] = Field(default_factory=dict)
    """Further sbatch options with their long names, such as `{mail-type: FAIL, exclude: node7}`."""
    container: Container | None = None
    """Container in which the tasks run."""
    python: str | None = None
    """Command that starts Python in a task. The default is `python` in a container, and otherwise
    the interpreter that runs flexhpc."""
    stop_before: Annotated[float, Field(ge=5, le=86_400)] | None = None
    """Time in seconds before the time limit at which a task saves its state and is requeued; the
    default is 90, or a quarter of the time limit if this is shorter."""
    restarts: Annotated[int, Field(ge=0, le=10_000)] = 100
    """Maximum number of times that a task is requeued, after preemption or at its time limit."""
    slurm_conf: str | None = None
    """Path of slurm.conf; without this key, the system default is used. The environment variable
    SLURM_CONF takes precedence."""

    def combination_problems(self) -> Problems:
        yield from super().combination_problems()
        limit = None if self.time_limit is None else self.time_limit * 60
        if self.stop_before is not None and limit is not None and self.stop_before > 0.8 * limit:
            maximum = f"{0.8 * limit:.0f} s (four fifths of the time limit)"
            yield "stop_before", f"must be at most {maximum}, not {self.stop_before:g} s"
        processes = max(self.processes_per_node, self.probes_at_once or 1)
        if self.gpus_per_node > processes:
            gpus = self.gpus_per_node
            problem = f"{gpus} GPUs for {processes} processes would leave some GPUs idle"
            yield "gpus_per_node", f"{problem}; increase processes_per_node or probes_at_once"
        for name in self.sbatch:
            option = normalise_option_name(name)
            if option in _RESERVED_OPTIONS:
                yield f"sbatch.{name}", f"is set by flexhpc; {_RESERVED_OPTIONS[option]}"
            key = _CONFLICTING_OPTIONS.get(option)
            if key in self.model_fields_set:
                yield f"sbatch.{name}", f"cannot be combined with {key}; remove one of them"

    @property
    def time_limit(self) -> int | None:
        """Time limit in minutes; None for the default of the cluster."""
        return None if self.time is None else time_limit_minutes(self.time)

    @property
    def stop_before_or_default(self) -> float:
        """Value of ``stop_before`` in seconds, or its default if the key is not set."""
        if self.stop_before is not None:
            return self.stop_before
        return 90.0 if self.time_limit is None else min(90.0, 15.0 * self.time_limit)


def normalise_option_name(name: str) -> str:
    """Remove leading dashes from the name of an sbatch option; replace ``_`` with ``-``."""
    return name.lstrip("-").replace("_", "-")


_CONFLICTING_OPTIONS = {
    **dict.fromkeys(("gres", "gpus", "gpus-per-task", "gpus-per-socket"), "gpus_per_node"),
    **dict.fromkeys(("mem-per-cpu", "mem-per-gpu"), "mem_gb"),
}
_RESERVED_OPTIONS = {
    **{
        name: f"use the key {key}"
        for name, key in {
            "partition": "partition", "account": "account", "qos": "qos", "time": "time",
            "constraint": "constraint", "mem": "mem_gb", "nodes": "nodes",
            "ntasks-per-node": "processes_per_node", "gpus-per-node": "gpus_per_node",
            "cpus-per-task": "cpus_per_process", "signal": "stop_before",
        }.items()
    },
    **dict.fromkeys(
        ("array", "job-name", "output", "error", "open-mode", "requeue", "no-requeue",
         "dependency", "ntasks", "wrap", "parsable"), "remove it",
    ),
}  # fmt: skip

_PROFILES: VariantUnion[Profile] = VariantUnion(
    "cluster", {"local": LocalProfile, "slurm": SlurmProfile}
)


def load_profile(path: Path | None) -> LocalProfile | SlurmProfile:
    """Read a profile; without a path, return the default profile, which uses this machine.

    Raises:
        InputError: the profile is invalid; the message lists all errors with their line numbers.
    """
    if path is None:
        return LocalProfile()
    document = read_yaml(path)
    profile, problems = validate(_PROFILES, {"cluster": "local", **document.value})
    for key_path, problem in problems:
        document.add_problem_at(key_path, problem)
    raise_if_problems(document.problems)
    assert isinstance(profile, LocalProfile | SlurmProfile)
    return profile
