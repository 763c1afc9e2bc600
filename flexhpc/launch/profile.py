"""Profiles: where and how to run a sweep. Never what to measure."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from flexhpc.spec.load import raise_problems
from flexhpc.spec.resolve import explain
from flexhpc.spec.sections import Section
from flexhpc.spec.yaml_reader import Problem, read

Count = Annotated[int, Field(ge=1, le=100_000)]
WORKER_GPU = "FLEXHPC_GPU"
"""Environment variable that names the GPU of a worker; empty for none."""


class Profile(Section):
    """A file of hpc/profiles: every key is optional."""

    cluster: Literal["local"] = "local"
    """Where points run: `local`, on this machine."""
    workers: Count | None = None
    """Processes that measure points at the same time; by default one per GPU, else per core."""
    cpus_per_process: Count = 1
    """Threads of each worker; processes that each use all cores slow each other down badly."""
    tracking_uri: str | None = None
    """MLflow server; by default a database in the run folder; `none`: only `flexhpc sync`."""
    retries: Annotated[int, Field(ge=0, le=100)] = 2
    """How often a point is tried again after its worker died."""
    checkpoint_every: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    """Seconds between checkpoints of a probe in progress."""

    def worker_count(self) -> int:
        """Return the number of workers on this machine."""
        return self.workers or len(visible_gpus()) or _cores()


def load_profile(path: Path | None) -> Profile:
    """Read a profile; None gives the defaults.

    Raises:
        InputError: with every error of the file.
    """
    if path is None:
        return Profile()
    document = read(path)
    problems = list(document.problems)
    try:
        profile = Profile.model_validate(document.value)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            keys, what = explain("", Profile, "", detail)
            line = document.line(keys)
            problems.append(Problem(file=str(path), line=line, key=".".join(keys), what=what))
    raise_problems(problems)
    return profile


def visible_gpus() -> list[str]:
    """Return the NVIDIA GPUs that this process may use, without importing torch.

    As CUDA_VISIBLE_DEVICES names them: numbers, or the ids of GPUs and MIG slices.
    """
    devices = sorted(
        (name[6:] for name in (os.listdir("/dev") if os.path.isdir("/dev") else [])
         if name.startswith("nvidia") and name[6:].isdecimal()),
        key=int,
    )  # fmt: skip
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None or not devices:
        return devices
    return [part.strip() for part in listed.split(",") if part.strip()]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
