"""Client of the fork server, the process that forks local workers."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

from flexhpc.worker.fork_server import Event, Order
from flexhpc.worker.signals import EXIT_PEER_LOST
from flexhpc.worker.task import Owner

_CLOSE_WITHIN = 60.0


class OrderedWorker:
    """State of a worker, as reported by the fork server.

    Attributes:
        server: the server that forks the worker.
        processes: number of processes of the worker.
        started: id and start time of each started process, by process id.
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
        """Return whether every process exited with status 0 or ``EXIT_PEER_LOST``."""
        all_ended = len(self.ended) == self.processes
        return all_ended and not any(set(self.ended.values()) - {0, EXIT_PEER_LOST})


class ForkServer:
    """Child process that forks workers; it is reused, because its imports take seconds.

    Args:
        log: file to which its stderr is appended.
    """

    _current: ForkServer | None = None

    def __init__(self, log: Path) -> None:
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "flexhpc.worker.fork_server"],
                bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                start_new_session=True,  # shield it from Ctrl-C and the hang-up of the terminal
            )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._orders, self._answers = self._process.stdin, self._process.stdout
        os.set_blocking(self._answers.fileno(), False)
        self._unread = b""
        self._workers: dict[str, OrderedWorker] = {}
        atexit.register(self._close)

    @classmethod
    def of_this_process(cls, log: Path) -> ForkServer:
        """Return the running server of this process, or start one that logs to ``log``."""
        if cls._current is None or not cls._current.alive():
            cls._current = cls(log)
        return cls._current

    def alive(self) -> bool:
        """Return whether the server is running."""
        return self._process.poll() is None

    def start(self, order: Order) -> OrderedWorker:
        """Ask the server to start a worker, which counts as crashed if the server is dead."""
        self._workers[order.worker] = worker = OrderedWorker(self, order.processes)
        with contextlib.suppress(BrokenPipeError):
            self._orders.write(order.line())
        return worker

    def poll(self) -> None:
        """Process the events that the server has reported since the last call."""
        while chunk := self._answers.read(1 << 16):
            *lines, self._unread = (self._unread + chunk).split(b"\n")
            for line in lines:
                event = Event(**json.loads(line))
                worker = self._workers[event.worker]
                if event.status is None:
                    worker.started[event.pid] = Owner.of(event.pid)
                else:
                    worker.ended[event.pid] = event.status

    def _close(self) -> None:
        """Let the server start all requested workers and exit; the workers outlive it."""
        if not self._workers:
            self._process.kill()
        self._orders.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_CLOSE_WITHIN)
        self._answers.close()
