"""Client of the fork server, the process that forks local workers."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

from flexhpc.imports import child_environment
from flexhpc.worker.fork_server import ProcessEvent, StartRequest
from flexhpc.worker.signals import EXIT_PEER_LOST
from flexhpc.worker.task import ProcessIdentity

_CLOSE_WITHIN = 60.0


class ForkedWorker:
    """State of a worker, as reported by the fork server.

    Attributes:
        server: the server that forks the worker.
        processes: number of processes of the worker.
        identities: maps the pid of each started process to its identity (pid and start time).
        exit_statuses: maps the pid of each process that has ended to its exit status.
    """

    def __init__(self, server: ForkServer, processes: int) -> None:
        self.server, self.processes = server, processes
        self.identities: dict[int, ProcessIdentity] = {}
        self.exit_statuses: dict[int, int] = {}

    def is_running(self) -> bool:
        """Return whether any process of the worker is running or about to be started.

        If the fork server has died, it starts no further processes and reports no exits. The
        processes already started are then checked directly.
        """
        if self.server.is_alive():
            return len(self.exit_statuses) < self.processes
        self.server.poll()  # read what the server reported just before it died
        return any(
            p.is_alive() for pid, p in self.identities.items() if pid not in self.exit_statuses
        )

    def succeeded(self) -> bool:
        """Return whether every process exited with status 0 or ``EXIT_PEER_LOST``.

        A process that lost a peer has not failed itself; the status of the peer shows the failure.
        """
        all_ended = len(self.exit_statuses) == self.processes
        return all_ended and set(self.exit_statuses.values()) <= {0, EXIT_PEER_LOST}


class ForkServer:
    """Child process that forks workers.

    All sweeps in one Python process share one server, because its imports take seconds.

    Args:
        log: file to which the stderr of the server is appended.
    """

    _current: ForkServer | None = None

    def __init__(self, log: Path) -> None:
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "flexhpc.worker.fork_server"],
                bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                start_new_session=True,  # shield it from Ctrl-C and the hang-up of the terminal
                env=child_environment(),
            )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._events = self._process.stdin, self._process.stdout
        os.set_blocking(self._events.fileno(), False)
        self._partial_line = b""
        self._workers: dict[str, ForkedWorker] = {}
        atexit.register(self._close)

    @classmethod
    def of_this_process(cls, log: Path) -> ForkServer:
        """Return the fork server of this process; start one with log file ``log`` if necessary."""
        if cls._current is None or not cls._current.is_alive():
            cls._current = cls(log)
        return cls._current

    def is_alive(self) -> bool:
        """Return whether the server is running."""
        return self._process.poll() is None

    def start_worker(self, request: StartRequest) -> ForkedWorker:
        """Request a worker from the server, and return its state.

        If the server is dead, the worker counts as crashed.
        """
        self._workers[request.worker] = worker = ForkedWorker(self, request.processes)
        with contextlib.suppress(BrokenPipeError):
            self._requests.write(request.to_json_line())
        return worker

    def poll(self) -> None:
        """Process the events that the server has reported since the last call."""
        while chunk := self._events.read(1 << 16):
            *lines, self._partial_line = (self._partial_line + chunk).split(b"\n")
            for line in lines:
                event = ProcessEvent(**json.loads(line))
                worker = self._workers[event.worker]
                if event.status is None:
                    worker.identities[event.pid] = ProcessIdentity.of_pid(event.pid)
                else:
                    worker.exit_statuses[event.pid] = event.status

    def _close(self) -> None:
        """Let the server start all requested workers and exit; the workers continue to run."""
        if not self._workers:
            self._process.kill()
        self._requests.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_CLOSE_WITHIN)
        self._events.close()
