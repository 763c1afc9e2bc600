"""Profiles: where and how to run a sweep. Never what to measure."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from flexhpc.config.sections.base import Section
from flexhpc.launch.machine import cores, visible_gpus
from flexhpc.tracking.state import NO_PASSWORD, has_password

Count = Annotated[int, Field(ge=1, le=100_000)]
Name = Annotated[str, Field(pattern=r"^[^\s'\"]+$")]
Option = Annotated[str, Field(pattern="^-{0,2}[a-zA-Z][a-zA-Z_-]*$")]

_TIME = re.compile(r"(?:(?P<d>\d+)-)?(?P<a>\d+)(?::(?P<b>\d+))?(?::(?P<c>\d+))?")

_LONGEST = 10 * 366 * 86_400


def minutes(time: int | str) -> int:
    """Return a time limit in minutes, rounded up.

    Args:
        time: minutes, or as sbatch takes it: ``MM``, ``MM:SS``, ``HH:MM:SS``, ``D-HH``,
            ``D-HH:MM``, ``D-HH:MM:SS``.

    Raises:
        ValueError: it has no such form, or is not above zero.
    """
    match = _TIME.fullmatch(str(time))
    if match is None:
        raise ValueError("is not minutes, HH:MM:SS or D-HH:MM:SS")
    a, b, c = (int(match[key] or 0) for key in "abc")
    if match["d"] is not None:
        seconds = int(match["d"]) * 86_400 + a * 3600 + b * 60 + c
    elif match["c"] is not None:
        seconds = a * 3600 + b * 60 + c
    else:
        seconds = a * 60 + b
    if seconds == 0:
        raise ValueError("must be above zero")
    if seconds > _LONGEST:
        raise ValueError("is longer than ten years")
    return math.ceil(seconds / 60)


def _checked_time(time: int | str) -> int | str:
    minutes(time)
    return time


def _words(line: str) -> str:
    try:
        shlex.split(line)
    except ValueError:
        raise ValueError("has a quote that is not closed") from None
    return line


class Profile(Section):
    """A profile: every key is optional."""

    cluster: str
    """Where points run."""
    processes_per_node: Annotated[int, Field(ge=1, le=1024)] = 1
    """Processes on each node that train one point together (data parallel); each takes a GPU."""
    cpus_per_process: Count = 1
    """Threads of each process; processes that each use all cores slow each other down badly."""
    probes_at_once: Annotated[int, Field(ge=1, le=8)] | None = None
    """Probes of one point that train at the same time, where its search asks for several
    (`search.at_once`); each takes `cpus_per_process` threads and, in turn, a GPU. By default 1, on
    this machine as many as workers are left without a point when they start."""
    tracking_uri: str | None = None
    """MLflow server; by default a database in the run folder; `none`: only `flexhpc sync`."""
    retries: Annotated[int, Field(ge=0, le=100)] = 2
    """How often a point is tried again after its worker died."""
    checkpoint_every: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    """Seconds between checkpoints of a probe in progress."""

    @classmethod
    def clashes(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """See :meth:`Section.clashes`."""
        if has_password(values.get("tracking_uri")):
            yield "tracking_uri", NO_PASSWORD
        several = [key for key in ("nodes", "processes_per_node") if values.get(key, 1) != 1]
        if several and values.get("probes_at_once", 1) not in (1, None):
            yield (
                "probes_at_once",
                f"has no effect with {several[0]}: its processes train one probe together",
            )


class LocalProfile(Profile):
    """This machine."""

    cluster: Literal["local"] = "local"
    """This machine."""
    workers: Count | None = None
    """Points measured at the same time; by default as many as GPUs, else cores, allow."""

    def worker_count(self) -> int:
        """Return the number of points that are measured at the same time."""
        each = self.processes_per_node * (self.probes_at_once or 1)
        gpus = len(visible_gpus())
        return self.workers or max(1, gpus // each if gpus else cores() // each)

    def spread(self, points: int) -> tuple[int, int]:
        """Return how many workers measure so many points, and the probes at once of each."""
        most = self.worker_count()
        workers = min(most, points)
        if self.processes_per_node > 1:
            return workers, 1
        return workers, self.probes_at_once or most // workers


class Container(Section):
    """The image that tasks run in."""

    runtime: Literal["apptainer", "podman", "docker"]
    """What runs it; on the nodes."""
    image: Annotated[str, Field(pattern=r"^[^\s,]+$")]
    """A SIF file for apptainer, else the name of an image."""
    binds: list[Annotated[str, Field(pattern=r"^/[^\n,]*$")]] = Field(default_factory=list)
    """Folders to see inside, `/scratch` or `/host/folder:/inside[:ro]`, besides run and data."""
    flags: list[Annotated[str, AfterValidator(_words)]] = Field(default_factory=list)
    """Further options of `apptainer exec`, `podman run` or `docker run`."""


class SlurmProfile(Profile):
    """Array jobs of a SLURM cluster."""

    cluster: Literal["slurm"]
    """A SLURM cluster, from a machine with sbatch and a shared file system."""
    partition: Name | None = None
    """Partition; by default the cluster's own default, as for all that follow."""
    account: Name | None = None
    """Account that is charged."""
    qos: Name | None = None
    """Quality of service."""
    constraint: str | None = None
    """Features that nodes must have, as in `a100|h100`."""
    time: Annotated[int | str, AfterValidator(_checked_time)] | None = None
    """Time limit of a task: minutes, HH:MM:SS or D-HH:MM:SS; longer work goes on in a new one."""
    mem_gb: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] | None = None
    """Memory of each node, in GB; 0: all that it has."""
    nodes: Annotated[int, Field(ge=1, le=1024)] = 1
    """Nodes that train one point together."""
    gpus_per_node: Annotated[int, Field(ge=0, le=1024)] = 0
    """GPUs of each node; fewer than processes are shared by them."""
    throttle: Count | None = None
    """Tasks that may run at the same time, over all arrays of the sweep; by default no limit."""
    max_array: Count | None = None
    """Most tasks of one array, where the site limits the jobs that a user may have submitted."""
    points_per_task: Count = 1
    """Points that one task measures, one after the other: saves queueing for short ones."""
    setup: list[str] = Field(default_factory=list)
    """Lines of shell before Python starts: `module load cuda`, `export FLEXHPC_DATA=/data`."""
    sbatch: dict[Option, str | int | float | bool] = Field(default_factory=dict)
    """Further sbatch options by their long names: `{mail-type: FAIL, exclude: node7}`."""
    container: Container | None = None
    """The image that tasks run in."""
    python: str | None = None
    """Command that starts Python in a task; by default the one that runs flexhpc, in a container
    the image's `python`."""
    stop_before: Annotated[float, Field(ge=5, le=86_400)] | None = None
    """Seconds before the time limit at which a task saves and is queued again; by default 90, or a
    quarter of a short limit."""
    restarts: Annotated[int, Field(ge=0, le=10_000)] = 100
    """How often one task is queued again after it was preempted or out of time."""
    slurm_conf: str | None = None
    """The cluster's configuration, where it is not the system's; SLURM_CONF goes before it."""

    @classmethod
    def clashes(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """See :meth:`Section.clashes`."""
        yield from super().clashes(values)
        time, before = values.get("time"), values.get("stop_before")
        try:
            limit = math.inf if time is None else minutes(time) * 60
        except ValueError:
            limit = math.inf
        if isinstance(before, int | float) and before > 0.8 * limit:
            message = f"{before:g} s leave little of {limit} s; use at most four fifths"
            yield "stop_before", message
        gpus = values.get("gpus_per_node")
        users = (values.get("processes_per_node"), values.get("probes_at_once"))
        each = max((u for u in users if isinstance(u, int)), default=1)
        if isinstance(gpus, int) and gpus > each >= 1:
            yield (
                "gpus_per_node",
                (
                    f"{gpus} GPUs for {each} processes leave some idle: a process uses one; "
                    "use as many processes_per_node, or probes_at_once"
                ),
            )
        sbatch = values.get("sbatch")
        for name in sbatch if isinstance(sbatch, dict) else ():
            what = _OWN_OPTIONS.get(option(str(name)))
            if what is not None:
                yield f"sbatch.{name}", f"is set by flexhpc; {what}"
            rival = _RIVALS.get(option(str(name)))
            if rival is not None and values.get(rival) is not None:
                yield f"sbatch.{name}", f"says the same as {rival}; keep one of them"

    @property
    def cpus_per_task(self) -> int:
        """Cores of each process that SLURM starts."""
        return self.cpus_per_process * (self.probes_at_once or 1)

    @property
    def time_limit(self) -> int | None:
        """The time limit in minutes."""
        return None if self.time is None else minutes(self.time)

    @property
    def notice(self) -> float:
        """Seconds before the end at which a task stops."""
        if self.stop_before is not None:
            return self.stop_before
        return 90.0 if self.time_limit is None else min(90.0, 15.0 * self.time_limit)


def option(name: str) -> str:
    """Return the long name of an sbatch option, however it was written."""
    return name.lstrip("-").replace("_", "-")


_RIVALS = {
    **dict.fromkeys(("gres", "gpus", "gpus-per-task", "gpus-per-socket"), "gpus_per_node"),
    **dict.fromkeys(("mem-per-cpu", "mem-per-gpu"), "mem_gb"),
}
_OWN_OPTIONS = {
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
         "dependency", "ntasks", "wrap", "parsable"), "leave it out",
    ),
}  # fmt: skip
