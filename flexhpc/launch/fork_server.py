"""The fork server of this process, begun before anything else: its imports take seconds.

So nothing heavy is imported here.
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
from flexhpc.worker.signals import ALONE

if TYPE_CHECKING:
    from flexhpc.worker.task import Owner

_DISMISSED_WITHIN = 60.0
_LOOKED_AT = 1 << 16


def expect_workers(profile: Path | None) -> None:
    """Begin with what workers import while the sweep is made ready, if they seem to run here.

    Whether a profile is right, and of this machine, is found later by reading it.
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
    """Return a file that is gone when it is closed; nothing, where temporary ones cannot be had."""
    try:
        file, name = tempfile.mkstemp()
    except OSError:
        return os.open(os.devnull, os.O_RDWR)
    os.unlink(name)
    return file


class OrderedWorker:
    """What the server has told of a worker.

    Attributes:
        started: its processes; ended: exit status of those that are no more, by process id.
    """

    def __init__(self, server: ForkServer, processes: int) -> None:
        self.server, self.processes = server, processes
        self.started: dict[int, Owner] = {}
        self.ended: dict[int, int] = {}

    def runs(self) -> bool:
        """Return whether a process of it runs, or will; without its server nobody tells."""
        if self.server.lives():
            return len(self.ended) < self.processes
        self.server.poll()  # what it told just before its end
        return any(p.lives() for pid, p in self.started.items() if pid not in self.ended)

    def ended_well(self) -> bool:
        """Return whether every process said that it had nothing left to do, or lost its peers."""
        whole = len(self.ended) == self.processes
        return whole and not any(set(self.ended.values()) - {0, ALONE})


class ForkServer:
    """The process that forks workers for this one; it needs a few seconds for its imports."""

    _current: ForkServer | None = None

    def __init__(self) -> None:
        self._errors = _unnamed_file()  # the run's folder is not known yet
        self._copied = 0
        self._log: Path | None = None
        self._process = subprocess.Popen(
            [sys.executable, "-m", "flexhpc.worker.fork_server"],
            bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
            start_new_session=True,  # neither Ctrl-C nor the end of the terminal is for it
        )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._orders, self._answers = self._process.stdin, self._process.stdout
        os.set_blocking(self._answers.fileno(), False)
        self._unread = b""
        self._workers: dict[str, OrderedWorker] = {}
        atexit.register(self._dismiss)

    @classmethod
    def of_this_process(cls) -> ForkServer:
        """Return the one that runs, or a new one."""
        if cls._current is None or not cls._current.lives():
            cls._current = cls()
        return cls._current

    def lives(self) -> bool:
        """Return whether it still runs."""
        return self._process.poll() is None

    def start(self, order: Order) -> OrderedWorker:
        """Order a worker; where that is in vain, it counts as crashed."""
        self._workers[order.worker] = worker = OrderedWorker(self, order.processes)
        self._log = Path(order.worker).with_name("fork_server_log.err")
        with contextlib.suppress(BrokenPipeError):
            self._orders.write(order.line())
        return worker

    def poll(self) -> None:
        """Read what it has told since the last time."""
        while told := self._answers.read(1 << 16):
            *lines, self._unread = (self._unread + told).split(b"\n")
            for line in lines:
                self._take(event(line))

    def copy_errors(self) -> None:
        """Write what is new of its stderr beside the logs of its newest worker."""
        new = os.fstat(self._errors).st_size - self._copied
        if new > 0 and self._log is not None:
            with contextlib.suppress(OSError), self._log.open("ab") as log:
                log.write(os.pread(self._errors, new, self._copied))
                self._copied += new

    def _dismiss(self) -> None:
        """Let it carry out what was ordered, and end; its workers are not its own."""
        if not self._workers:
            self._process.kill()
        self._orders.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_DISMISSED_WITHIN)
        self.copy_errors()
        self._answers.close()
        os.close(self._errors)

    def _take(self, what: Started | Ended) -> None:
        """Write down what one line said; a short-lived process may end before it was started."""
        from flexhpc.worker.task import Owner  # and with it all that reads points

        if isinstance(what, Started):
            self._workers[what.worker].started[what.pid] = Owner.of(what.pid)
        else:
            self._workers[what.worker].ended[what.pid] = what.status
