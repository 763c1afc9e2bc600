"""Stop requests, exit statuses and exits of workers.

This module imports only the standard library, so that signal handlers can be installed before torch
is imported; see entry.py.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGUSR2)
"""Signals that request a stop. SIGTERM is sent on preemption, and by scancel and service managers;
SIGUSR2 is sent by SLURM before the time limit (``sbatch --signal``)."""

EXIT_REQUEUE = 201
"""Exit status of a worker that was stopped before all its points were measured. The task of the
worker must be requeued.

srun returns the highest exit status of the processes that it started. Therefore this status is
higher than the statuses of container runtimes (125 to 127; podman returns them if it loses the
status of a process) and the statuses of processes that a signal has killed (129 to 192).
"""
EXIT_PEER_LOST = 200
"""Exit status of a process that could not connect to its peers, lost the connection to them, or
exits early because they might wait for it forever."""


class StopRequest:
    """Request to stop a worker, set by a signal handler, the watchdog or the caller.

    The training loop polls the request. The request is stored in an attribute and not in a
    threading.Event, because the code that a signal interrupts may hold the lock of the Event. A
    signal handler that sets the Event would then deadlock.
    """

    def __init__(self) -> None:
        self.reason = ""

    @classmethod
    def for_signals(cls) -> StopRequest:
        """Create a stop request that SIGTERM and SIGUSR2 set."""
        stop = cls()
        for number in SIGNALS:
            signal.signal(number, lambda received, _: stop.set(signal.Signals(received).name))
        return stop

    def set(self, reason: str) -> None:
        """Request a stop; the reason of an earlier request is kept."""
        self.reason = self.reason or reason

    def is_set(self) -> bool:
        """Return whether a stop was requested."""
        return bool(self.reason)


def exit_without_cleanup(status: int) -> NoReturn:
    """Flush the output and exit; skip exit handlers and the shutdown of the interpreter."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)
