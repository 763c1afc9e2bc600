"""What a sweep and its fork server say to each other: lines of JSON. Imports nothing heavy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Order:
    """One worker to start.

    Attributes:
        worker: path and first letters of its logs, which name it.
        task: path of the task's file.
        processes: that train each of its probes together.
        environment: all of it; cwd: working directory.
    """

    worker: str
    task: str
    processes: int
    environment: Mapping[str, str]
    cwd: str

    def line(self) -> bytes:
        """Return it as :func:`main` reads it."""
        return json.dumps(asdict(self)).encode() + b"\n"

    def log(self, rank: int, stream: str) -> Path:
        """Return where a process of it writes to; its end is as of submitit's logs."""
        return Path(f"{self.worker}_{rank}_log.{stream}")


@dataclass(frozen=True, kw_only=True)
class Started:
    """A process of a worker runs; pid: its id."""

    worker: str
    pid: int


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A process is no more; status: as it exited, or the negative number of what killed it."""

    worker: str
    pid: int
    status: int


def event(line: bytes) -> Started | Ended:
    """Return what a line of stdout says."""
    value = json.loads(line)
    return Ended(**value) if "status" in value else Started(**value)
