"""Distributed environment of a worker process: rank, peers, log file and deadline."""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

DEADLINE = "FLEXHPC_DEADLINE"
"""Environment variable that contains the end of the allocation (seconds since the epoch)."""
_SECRET = ".secret"


def write_secret(folder: Path) -> None:
    """Write a file with a new secret, by which the processes of a job authenticate each other.

    Only the file's owner can read it.
    """
    path = folder / _SECRET
    path.touch(mode=0o600)
    path.write_text(secrets.token_hex(16))


def read_secret(folder: Path) -> str:
    """Return the secret that :func:`write_secret` wrote to a folder."""
    return (folder / _SECRET).read_text()


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Distributed environment of this process.

    The default values describe a job that consists of one process.

    Attributes:
        rank: rank of this process in the job.
        world_size: number of processes of the job.
        local_rank: rank of this process among the processes of the job on its node.
        host: host name of rank 0.
        token: secret by which the processes of the job authenticate each other. It changes when
            the job is requeued, so that processes that were started before are rejected.
        job: job id, such as ``123_4`` for task 4 of array 123; for a local worker, its name.
        index: index of the array task, such as 4 for job ``123_4``; 0 outside an array.
        log: path of the stderr log.
        deadline: end of the allocation (seconds since the epoch), or None if unknown.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    host: str = "127.0.0.1"
    token: str = ""
    job: str = ""
    index: int = 0
    log: str
    deadline: float | None = None

    @classmethod
    def from_slurm(cls) -> Environment:
        """Create the environment of this process from the variables of SLURM and submitit.

        scontrol is not called, because it is not available in a container.
        """
        from submitit import JobEnvironment  # takes 0.1 s; local workers do not need it

        job = JobEnvironment()
        attempt = os.environ.get("SLURM_RESTART_COUNT", "0")
        deadline = os.environ.get(DEADLINE)
        return cls(
            rank=job.global_rank,
            world_size=job.num_tasks,
            local_rank=job.local_rank,
            host="127.0.0.1" if job.num_nodes == 1 else job.hostnames[0],
            token=f"{read_secret(job.paths.folder)} {job.job_id} {attempt}",
            job=job.job_id,
            index=int(job.array_task_id or 0),
            log=str(job.paths.stderr),
            deadline=float(deadline) if deadline else None,
        )

    @property
    def failures_file(self) -> Path:
        """File to which the batch script appends each exit status that calls for a requeue.

        The worker removes the file when it claims a point.
        """
        return Path(self.log).parent / f"{self.job}.failures"

    def remaining_seconds(self) -> float | None:
        """Return the remaining time of the allocation (seconds), or None if unknown."""
        return None if self.deadline is None else self.deadline - time.time()
