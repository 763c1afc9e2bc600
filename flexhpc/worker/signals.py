"""The request to stop that a worker gets by a signal. Imports nothing heavy: see entry.py."""

from __future__ import annotations

import signal
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGUSR2)
"""SIGTERM: preemption, scancel, a service manager. SIGUSR2: what SLURM is told to send."""

RESTART = 75
"""Exit status of a worker that stopped with work left (EX_TEMPFAIL), to be started again."""
ALONE = 76
"""Exit status of a process that lost the others of its job, or never met them."""


class Stop:
    """Set by a signal, by the clock, or by whoever calls; the training loop only asks.

    A plain attribute: a lock, as threading.Event has one, may be held by the very code that a
    signal interrupts.
    """

    def __init__(self) -> None:
        self.why = ""

    @classmethod
    def on_signals(cls) -> Stop:
        """Return one that SIGTERM and SIGUSR2 set from now on."""
        stop = cls()

        def handle(number: int, _: Any) -> None:
            stop.set(signal.Signals(number).name)

        for number in SIGNALS:
            signal.signal(number, handle)
        return stop

    def set(self, why: str) -> None:
        """Ask to stop; the first reason stays."""
        self.why = self.why or why

    def is_set(self) -> bool:
        """Return whether it is time to stop."""
        return bool(self.why)
