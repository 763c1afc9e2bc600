"""Messages between a sweep and its fork server, one JSON object per line.

Imports only the standard library, so that the fork server's client starts quickly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Order:
    """Request to start one worker.

    Attributes:
        worker: name of the worker: path prefix of its log files.
        task: path of the task file.
        processes: number of processes that train each probe together.
        environment: complete environment of the processes.
        cwd: working directory.
    """

    worker: str
    task: str
    processes: int
    environment: Mapping[str, str]
    cwd: str

    def line(self) -> bytes:
        """Return the order as one JSON line, as the fork server reads it."""
        return json.dumps(asdict(self)).encode() + b"\n"

    def log(self, rank: int, stream: str) -> Path:
        """Return the log file of one process; the suffix is the same as in submitit's logs.

        Args:
            rank: rank of the process.
            stream: ``out`` or ``err``.
        """
        return Path(f"{self.worker}_{rank}_log.{stream}")


@dataclass(frozen=True, kw_only=True)
class Started:
    """Event: a process of a worker was started.

    Attributes:
        worker: name of the worker; see :class:`Order`.
        pid: process id.
    """

    worker: str
    pid: int


@dataclass(frozen=True, kw_only=True)
class Ended:
    """Event: a process of a worker ended.

    Attributes:
        worker: name of the worker; see :class:`Order`.
        pid: process id.
        status: exit status, or the negative number of the signal that killed the process.
    """

    worker: str
    pid: int
    status: int


def event(line: bytes) -> Started | Ended:
    """Parse one line of the fork server's stdout."""
    value = json.loads(line)
    return Ended(**value) if "status" in value else Started(**value)
