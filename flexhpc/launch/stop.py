"""The request to stop that a worker gets by a signal. Imports nothing heavy: see entry.py."""

from __future__ import annotations

import signal
import threading
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGUSR2)
"""SIGTERM: preemption, scancel, a service manager. SIGUSR2: what SLURM is told to send."""

RESTART = 75
"""Exit status of a worker that stopped with work left (EX_TEMPFAIL), to be started again."""


class Stop:
    """Set by a signal, by the clock, or by whoever calls; the training loop only asks."""

    def __init__(self) -> None:
        self._event = threading.Event()
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
        self._event.set()

    def is_set(self) -> bool:
        """Return whether it is time to stop."""
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait for the request, at most so long; return whether it came."""
        return self._event.wait(seconds)
