"""Kill the processes that a test process has started, after it has ended for any reason.

Usage: python tests/reaper.py PID TOKEN

Waits until the process PID has ended, then kills every process with the token in its environment,
which all descendants of PID inherit: sweeps, workers, SLURM daemons. slurmstepd overwrites its
environment; it is found by its working directory, which is that of the slurmd of its node.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import uuid
from collections.abc import Callable

import psutil

TOKEN = "FLEXHPC_TEST_PROCESS"
NODE, STEP = "slurmd", "slurmstepd"
_ROUNDS = 10


def start() -> None:
    """Set the token of this process, and start its reaper."""
    os.environ[TOKEN] = uuid.uuid4().hex
    environment = {key: value for key, value in os.environ.items() if key != TOKEN}
    no_output = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in range(3)]
    command = [sys.executable, __file__, str(os.getpid()), os.environ[TOKEN]]
    os.posix_spawn(sys.executable, command, environment, file_actions=no_output, setsid=True)


def processes_with(condition: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
    """Return the processes that satisfy a condition, except those that end meanwhile."""
    processes = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if condition(process):
                processes.append(process)
    return processes


def steps_in(folders: set[str]) -> list[psutil.Process]:
    """Return the slurmstepd processes with these working directories."""
    return processes_with(lambda process: process.name() == STEP and process.cwd() in folders)


def main(pid: int, token: str) -> None:
    """Wait until a process has ended; kill the processes that it started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        watched = psutil.Process(pid)
        while watched.is_running() and watched.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.5)
    folders: set[str] = set()
    for _ in range(_ROUNDS):
        processes = processes_with(lambda process: process.environ().get(TOKEN) == token)
        for process in processes:
            with contextlib.suppress(psutil.Error):
                if process.name() == NODE:
                    folders.add(process.cwd())
        processes += steps_in(folders)
        if not processes:
            return
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.kill()
        time.sleep(0.3)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
