"""Content of a run's ``run.json``: its launches, and the software versions of the last launch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from flexhpc.state_file import read_state


@dataclass(frozen=True, kw_only=True)
class LaunchRecord:
    """One launch of a run.

    Attributes:
        id: id of the launch.
        time: start time (seconds since the epoch).
        host: host on which the sweep command ran.
        image: container image of the workers; None without a container.
        user: user who ran the sweep command.
    """

    id: str
    time: float
    host: str = ""
    image: str | None = None
    user: str = ""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Content of ``run.json``.

    Attributes:
        request: hash of the spec of the last launch; see :func:`~flexhpc.config.request_hash`.
        python: version of Python at the last launch.
        packages: version of each package at the last launch; None if it was not installed.
        git: Git commit of flexhpc at the last launch; None if it did not run from a checkout.
        launches: all launches, the oldest first.
    """

    request: str = ""
    python: str = ""
    packages: dict[str, str | None] = field(default_factory=dict)
    git: str | None = None
    launches: tuple[LaunchRecord, ...] = ()


def read_run_record(path: Path) -> RunRecord:
    """Read ``run.json``; return an empty record if the file is missing or invalid."""
    return read_state(RunRecord, path) or RunRecord()
