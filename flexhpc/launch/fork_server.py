"""Client of the fork server, the process that forks local workers.

The server is started before anything else, since its imports take seconds. This module must
therefore not import anything heavy.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from flexhpc.worker.orders import Ended, Order, Started, event
from flexhpc.worker.signals import EXIT_PEER_LOST

if TYPE_CHECKING:
    from flexhpc.worker.task import Owner

_DISMISSED_WITHIN = 60.0
_LOOKED_AT = 1 << 16


def expect_workers(profile: Path | None) -> None:
    """Start importing the modules of the workers while the sweep is prepared, if they run locally.

    This only guesses from the text of the profile; the profile is read and validated later.

    Args:
        profile: path of the profile; None for the defaults, which run workers on this machine.
    """
    with contextlib.suppress(OSError):
        if profile is None or _seems_local(profile):
            ForkServer.of_this_process()


def _seems_local(profile: Path) -> bool:
    if not profile.is_file():
        return False
    with profile.open("rb") as file:
        return b"slurm" not in file.read(_LOOKED_AT)


def _unnamed_file() -> int:
    """Return the descriptor of an unlinked temporary file; of /dev/null if none can be created."""
    try:
        file, name = tempfile.mkstemp()
    except OSError:
        return os.open(os.devnull, os.O_RDWR)
    os.unlink(name)
    return file


class OrderedWorker:
    """State of a worker, as reported by the fork server.

    Attributes:
        server: the server that forks the worker.
        processes: number of processes of the worker.
        started: owner records of the processes that were started, by process id.
        ended: exit statuses of the processes that have ended, by process id.
    """

    def __init__(self, server: ForkServer, processes: int) -> None:
        self.server, self.processes = server, processes
        self.started: dict[int, Owner] = {}
        self.ended: dict[int, int] = {}

    def runs(self) -> bool:
        """Return whether any process of the worker is running or about to be started.

        If the server has died, it reports no further exits; the processes are then checked
        directly.
        """
        if self.server.alive():
            return len(self.ended) < self.processes
        self.server.poll()  # read what the server reported just before it died
        return any(p.alive() for pid, p in self.started.items() if pid not in self.ended)

    def ended_well(self) -> bool:
        """Return whether every process exited with status 0, or with the status for lost peers."""
        all_ended = len(self.ended) == self.processes
        return all_ended and not any(set(self.ended.values()) - {0, EXIT_PEER_LOST})


class ForkServer:
    """A child process that forks workers; its imports take a few seconds."""

    _current: ForkServer | None = None

    def __init__(self) -> None:
        self._errors = _unnamed_file()  # the run folder is not known yet
        self._copied = 0
        self._log: Path | None = None
        self._process = subprocess.Popen(
            [sys.executable, "-m", "flexhpc.worker.fork_server"],
            bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
            start_new_session=True,  # shield it from Ctrl-C and from the hang-up of the terminal
        )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._orders, self._answers = self._process.stdin, self._process.stdout
        os.set_blocking(self._answers.fileno(), False)
        self._unread = b""
        self._workers: dict[str, OrderedWorker] = {}
        atexit.register(self._close)

    @classmethod
    def of_this_process(cls) -> ForkServer:
        """Return the running server of this process, or start one."""
        if cls._current is None or not cls._current.alive():
            cls._current = cls()
        return cls._current

    def alive(self) -> bool:
        """Return whether the server is running."""
        return self._process.poll() is None

    def start(self, order: Order) -> OrderedWorker:
        """Ask the server to start a worker; if the server is dead, the worker counts as crashed."""
        self._workers[order.worker] = worker = OrderedWorker(self, order.processes)
        self._log = Path(order.worker).with_name("fork_server_log.err")
        with contextlib.suppress(BrokenPipeError):
            self._orders.write(order.line())
        return worker

    def poll(self) -> None:
        """Process the events that the server has reported since the last call."""
        while chunk := self._answers.read(1 << 16):
            *lines, self._unread = (self._unread + chunk).split(b"\n")
            for line in lines:
                self._take(event(line))

    def copy_errors(self) -> None:
        """Append new output on the server's stderr to a log next to those of the newest worker."""
        new = os.fstat(self._errors).st_size - self._copied
        if new > 0 and self._log is not None:
            with contextlib.suppress(OSError), self._log.open("ab") as log:
                log.write(os.pread(self._errors, new, self._copied))
                self._copied += new

    def _close(self) -> None:
        """Let the server start the remaining workers and exit; the workers outlive it."""
        if not self._workers:
            self._process.kill()
        self._orders.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_DISMISSED_WITHIN)
        self.copy_errors()
        self._answers.close()
        os.close(self._errors)

    def _take(self, report: Started | Ended) -> None:
        """Record one event; the end of a short-lived process may be reported before its start."""
        from flexhpc.worker.task import Owner  # imported here because it loads heavy modules

        if isinstance(report, Started):
            self._workers[report.worker].started[report.pid] = Owner.of(report.pid)
        else:
            self._workers[report.worker].ended[report.pid] = report.status
