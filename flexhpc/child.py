"""Child processes that answer messages: custom trainers, and the concurrent probes of a point.

Usage: python -m flexhpc.child MODULE:FUNCTION DESCRIPTOR PARENT
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib import import_module
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from flexhpc.imports import imports_without_gc

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
_CHECK_EVERY = 0.5


class Child:
    """A Python process that calls a function with one end of a connection.

    It is a new interpreter, not a fork: it may use threads, processes and GPUs, and shares no state
    with this process. It ignores stop signals, which its parent handles. It is killed, with all
    processes that it started, when this process ends.

    Args:
        function: the function to call, ``module:function``; it returns when the connection is
            closed.

    Attributes:
        connection: end of the connection that belongs to this process.
        owner: id of the process that started the child; a fork of it must not use the child.
    """

    def __init__(self, function: str) -> None:
        self.owner = os.getpid()
        self.connection, remote = Pipe()
        with remote, _blocked_signals():
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, function, str(remote.fileno()), str(self.owner)],
                pass_fds=[remote.fileno()], start_new_session=True,
            )  # fmt: skip
        atexit.register(self.kill)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def alive(self) -> bool:
        """Return whether the child is running."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill the child and the processes that it started."""
        if self.owner == os.getpid():
            self.connection.close()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
            atexit.unregister(self.kill)

    def cause_of_death(self) -> str:
        """Return the exit status or the signal that ended the child, as text."""
        status = self._process.wait()
        if status >= 0:
            return f"exit status {status}"
        hint = "; out of memory?" if status == -signal.SIGKILL else ""
        return signal.Signals(-status).name + hint


@contextlib.contextmanager
def _blocked_signals() -> Iterator[None]:
    """Block signals, so that a new process inherits the mask and survives until it ignores them."""
    previous_mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous_mask)


def _end_with(parent: int) -> None:
    """Kill this process group when the parent process has died."""
    while os.getppid() == parent:
        time.sleep(_CHECK_EVERY)
    os.killpg(0, signal.SIGKILL)


def main(function: str, descriptor: int, parent: int) -> None:
    """Call a function with a connection to the parent process.

    Args:
        function: the function, ``module:function``.
        descriptor: file descriptor of the connection.
        parent: id of the parent process, which may have died already.
    """
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    module, name = function.split(":")
    with imports_without_gc():
        call = getattr(import_module(module), name)
    call(Connection(descriptor))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
