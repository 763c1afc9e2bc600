"""What a worker is told: one small file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from flexhpc.store.claim import process_birth, process_lives
from flexhpc.store.files import read_json, write_json


@dataclass(frozen=True, kw_only=True)
class Owner:
    """The process for which workers work; they stop when it is gone."""

    pid: int
    birth: float

    @classmethod
    def of(cls, pid: int) -> Owner:
        """Return the owner with this process id."""
        return cls(pid=pid, birth=process_birth(pid) or 0.0)

    def lives(self) -> bool:
        """Return whether it still runs."""
        return process_lives(self.pid, self.birth)


@dataclass(frozen=True, kw_only=True)
class TaskFile:
    """Content of a task's file.

    Attributes:
        run: the run folder; spec: the frozen spec of this launch.
        launch: id of the launch.
        stop: workers stop when this file exists.
        owner: whom to watch, or None for workers that outlive their launcher.
        threads: threads of the worker; retries: see Profile; checkpoint_every: seconds.
    """

    run: str
    spec: str
    launch: str
    stop: str
    owner: Owner | None
    threads: int
    retries: int
    checkpoint_every: float

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> TaskFile:
        """Read it back.

        Raises:
            FileNotFoundError: there is no such file.
        """
        value = read_json(path)
        if value is None:
            raise FileNotFoundError(path)
        owner = value.pop("owner")
        return cls(**value, owner=Owner(**owner) if owner else None)
