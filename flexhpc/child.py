"""Child processes that run custom trainers and the concurrent probes of a point.

Usage: python -m flexhpc.child MODULE:FUNCTION DESCRIPTOR PARENT_PID
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
from importlib import import_module
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from flexhpc.imports import child_environment, imports_without_gc

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
_CHECK_EVERY = 0.5  # seconds


class Child:
    """A child process that calls a Python function with one end of a connection to its parent.

    The child is a new Python interpreter, not a fork of the parent. It may therefore use threads,
    processes and GPUs, and shares no state with its parent. It ignores SIGINT, SIGTERM and
    SIGUSR2, because the parent handles them. When the parent ends, the child and all processes that
    the child started are killed.

    Args:
        function: import path of the function, ``module:function``. The function must return when
            the connection is closed.

    Attributes:
        connection: the parent's end of the connection.
        owner: process id of the parent. Forks of the parent must not use the child.
    """

    def __init__(self, function: str) -> None:
        self.owner = os.getpid()
        self.connection, remote = Pipe()
        # Stop signals are blocked, because the child ignores them only once its code runs.
        previous_mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            with remote:
                arguments = [function, str(remote.fileno()), str(self.owner)]
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", __name__, *arguments], pass_fds=[remote.fileno()],
                    start_new_session=True, env=child_environment(),
                )  # fmt: skip
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, previous_mask)
        atexit.register(self.kill)

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    def is_alive(self) -> bool:
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
        """Wait for the child to end; return its exit status or signal as text."""
        status = self._process.wait()
        if status >= 0:
            return f"exit status {status}"
        hint = "; out of memory?" if status == -signal.SIGKILL else ""
        return signal.Signals(-status).name + hint


def _die_with_parent(parent_pid: int) -> None:
    """Wait until the parent process has died; then kill this process and its children."""
    while os.getppid() == parent_pid:
        time.sleep(_CHECK_EVERY)
    os.killpg(0, signal.SIGKILL)


def main(function: str, descriptor: int, parent_pid: int) -> None:
    """Call a function with a connection to the parent process.

    Args:
        function: import path of the function, ``module:function``.
        descriptor: file descriptor of the connection.
        parent_pid: process id of the parent, which may have died already.
    """
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    threading.Thread(target=_die_with_parent, args=(parent_pid,), daemon=True).start()
    module, name = function.split(":")
    with imports_without_gc():
        call = getattr(import_module(module), name)
    call(Connection(descriptor))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
