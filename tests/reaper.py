"""Ends whatever a test process leaves behind, however that process ended.

Usage: python tests/reaper.py PID TOKEN: waits until PID is gone, then kills every process that has
the token in its environment, as all have that came from PID: sweeps, workers, daemons of SLURM; and
with a node of SLURM the daemons of its steps, which write over their environment.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import uuid

import psutil

TOKEN = "FLEXHPC_TEST_PROCESS"
NODE, STEP = "slurmd", "slurmstepd"
_ROUNDS = 10


def start() -> None:
    """Give this process a token, and start its reaper."""
    os.environ[TOKEN] = uuid.uuid4().hex
    own = {key: value for key, value in os.environ.items() if key != TOKEN}
    silent = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in range(3)]
    command = [sys.executable, __file__, str(os.getpid()), os.environ[TOKEN]]
    os.posix_spawn(sys.executable, command, own, file_actions=silent, setsid=True)


def marked(token: str) -> list[psutil.Process]:
    """Return the processes that have the token."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(TOKEN) == token:
                found.append(process)
    return found


def folders_of(nodes: list[psutil.Process]) -> set[str]:
    """Return the folders that those of some processes work in which are nodes of SLURM."""
    found = set()
    for process in nodes:
        with contextlib.suppress(psutil.Error):
            if process.name() == NODE:
                found.add(process.cwd())
    return found


def steps_in(folders: set[str]) -> list[psutil.Process]:
    """Return the daemons of steps that work in some folders, as their nodes do."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.name() == STEP and process.cwd() in folders:
                found.append(process)
    return found


def main(pid: int, token: str) -> None:
    """Wait for a process to end, then end all that it started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        watched = psutil.Process(pid)
        while watched.is_running() and watched.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.5)
    folders: set[str] = set()
    for _ in range(_ROUNDS):
        left = marked(token)
        folders |= folders_of(left)
        left += steps_in(folders)
        if not left:
            return
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        time.sleep(0.3)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
