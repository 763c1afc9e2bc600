"""Stop requests and exit statuses of workers.

Imports only the standard library, so that signals are handled before torch is imported; see
entry.py.
"""

from __future__ import annotations

import signal
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGUSR2)
"""Signals that request a stop. SIGTERM is sent on preemption, and by scancel and service managers;
SIGUSR2 is sent by SLURM before the time limit (``sbatch --signal``)."""

EXIT_REQUEUE = 201
"""Exit status of a worker that stopped with points left and must be requeued.

srun returns the highest exit status of its tasks. This status is above those of container runtimes
(125 to 127, for example if podman loses the status of another rank) and of signals (129 to 192).
"""
EXIT_PEER_LOST = 200
"""Exit status of a process that lost the connection to its peers, or never connected to them."""


class StopRequest:
    """Stop request, set by a signal handler, the watchdog or the caller.

    The training loop polls it. It is a plain attribute instead of a threading.Event, because the
    interrupted code may hold the lock of an Event; setting it in the handler would then deadlock.
    """

    def __init__(self) -> None:
        self.reason = ""

    @classmethod
    def on_signals(cls) -> StopRequest:
        """Create a stop request that SIGTERM and SIGUSR2 set."""
        stop = cls()

        def handle(number: int, _: Any) -> None:
            stop.set(signal.Signals(number).name)

        for number in SIGNALS:
            signal.signal(number, handle)
        return stop

    def set(self, reason: str) -> None:
        """Request a stop; the first reason is kept."""
        self.reason = self.reason or reason

    def is_set(self) -> bool:
        """Return whether a stop was requested."""
        return bool(self.reason)
