"""Which process of which job this is: rank, peers, log and clock, from the job's environment."""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

ENDS = "FLEXHPC_ENDS"
"""Environment variable with the time (seconds since the epoch) at which the allocation ends."""
_SECRET = ".secret"


def write_secret(folder: Path) -> None:
    """Write down, for our own eyes only, by what the processes of a job's tasks know each other."""
    path = folder / _SECRET
    path.touch(mode=0o600)
    path.write_text(secrets.token_hex(16))


def read_secret(folder: Path) -> str:
    """Return what :func:`write_secret` wrote; of a job of an older flexhpc, the folder's name."""
    try:
        return (folder / _SECRET).read_text()
    except FileNotFoundError:
        return str(folder)


@dataclass(frozen=True, kw_only=True)
class Place:
    """This process among those of its job.

    Attributes:
        rank: its number; size: number of processes; local_rank: its number on this node.
        host: of rank 0; token: names this attempt of this job, and nobody else can guess it.
        job: the job's id, ``123_4`` for task 4 of array 123; index: 4.
        log: where its stderr goes.
        ends: time at which the allocation ends, or None.
    """

    rank: int
    size: int
    local_rank: int
    host: str
    token: str
    job: str
    index: int
    log: str
    ends: float | None

    @classmethod
    def here(cls) -> Place:
        """Read it from what submitit and SLURM say; needs no scontrol, so works in a container."""
        from submitit import JobEnvironment  # a tenth of a second that workers here need not wait

        job = JobEnvironment()
        host = "127.0.0.1" if job.num_nodes == 1 else job.hostnames[0]
        attempt = os.environ.get("SLURM_RESTART_COUNT", "0")
        ends = os.environ.get(ENDS)
        return cls(
            rank=job.global_rank,
            size=job.num_tasks,
            local_rank=job.local_rank,
            host=host,
            token=f"{read_secret(job.paths.folder)} {job.job_id} {attempt}",
            job=job.job_id,
            index=int(job.array_task_id or 0),
            log=str(job.paths.stderr),
            ends=float(ends) if ends else None,
        )

    @property
    def setbacks(self) -> Path:
        """Where the batch script writes down each bad end of this task, until it gets further."""
        return Path(self.log).parent / f"{self.job}.setbacks"

    def seconds_left(self) -> float | None:
        """Return how long the allocation still lasts, or None if that is not known."""
        return None if self.ends is None else self.ends - time.time()
