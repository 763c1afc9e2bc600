"""Workers on this machine, forked by a process that has imported what they need."""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from flexhpc.launch.machine import visible_gpus
from flexhpc.launch.profile import LocalProfile
from flexhpc.versions import image
from flexhpc.worker.fork_server import Ended, Order, Started, event
from flexhpc.worker.task import PROBES_AT_ONCE, WORKER_GPU, Owner

_DISMISSED_WITHIN = 60.0


def expect_workers() -> None:
    """Begin with the imports of workers, which take seconds, while the sweep is made ready."""
    _ForkServer.of_this_process()


class LocalBackend:
    """Workers of one launch; each takes whatever point of the run is free.

    Args:
        folder: of the launch: logs, and the task.
        profile: how many workers, of how many processes.
    """

    shared = True
    ours = True
    patience = 5
    """Once is no reason to give a point up: another sweep may have held every point."""

    def __init__(self, folder: Path, profile: LocalProfile) -> None:
        self.folder, self.profile = folder, profile
        self.image = image()
        self._workers: list[_Worker] = []
        self._started = 0

    def poll(self) -> None:
        """Find out which workers run."""
        for server in {worker.server for worker in self._workers}:
            server.poll()
            server.copy_errors(self.folder / "fork_server_log.err")

    def covers(self, point_id: str) -> bool:
        """Any worker comes to any point."""
        return self.running()

    def running(self) -> bool:
        """Return whether a worker runs."""
        return any(worker.runs() for worker in self._workers)

    def crashed(self) -> bool:
        """Return whether one of the last workers did not end well."""
        return any(not worker.runs() and not worker.ended_well() for worker in self._workers)

    def start(self, points: Sequence[str]) -> bool:
        """Start workers."""
        count, at_once = self.profile.spread(len(points))
        processes = self.profile.processes_per_node
        each = processes * at_once
        gpus = visible_gpus()
        server = _ForkServer.of_this_process()
        self._workers = []
        for number in range(count):
            ids = [gpus[(number * each + i) % len(gpus)] for i in range(each)] if gpus else []
            told = {WORKER_GPU: ",".join(dict.fromkeys(ids)), PROBES_AT_ONCE: str(at_once)}
            self._started += 1
            order = Order(
                worker=str(self.folder / f"worker-{self._started}"),
                task=str(self.folder / "task.json"),
                processes=processes,
                environment={**os.environ, **told},
                cwd=str(Path.cwd()),
            )
            self._workers.append(server.start(order))
        return True

    def waiting(self) -> Mapping[str, str]:
        """Nothing queues on this machine."""
        return {}

    def log(self, point_id: str) -> str:
        """Return the folder of all logs: which worker died over a point is not known."""
        return str(self.folder)

    def note(self) -> str:
        """Nothing to say."""
        return ""

    def summary(self) -> str:
        """Return how many workers were started."""
        return f"{len(self._workers)} workers started"


class _Worker:
    """What the server has told of a worker.

    Attributes:
        started: its processes; ended: exit status of those that are no more, by process id.
    """

    def __init__(self, server: _ForkServer, processes: int) -> None:
        self.server, self.processes = server, processes
        self.started: dict[int, Owner] = {}
        self.ended: dict[int, int] = {}

    def runs(self) -> bool:
        """Return whether a process of it runs, or will; without its server nobody tells."""
        if self.server.lives():
            return len(self.ended) < self.processes
        return any(p.lives() for pid, p in self.started.items() if pid not in self.ended)

    def ended_well(self) -> bool:
        """Return whether every process of it said that it had nothing left to do."""
        return len(self.ended) == self.processes and not any(self.ended.values())


class _ForkServer:
    """The process that forks workers for this one; it needs a few seconds for its imports."""

    _current: _ForkServer | None = None

    def __init__(self) -> None:
        self._errors, name = tempfile.mkstemp()  # the run's folder is not known yet
        os.unlink(name)
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
        self._workers: dict[str, _Worker] = {}
        atexit.register(self._dismiss)

    @classmethod
    def of_this_process(cls) -> _ForkServer:
        """Return the one that runs, or a new one."""
        if cls._current is None or not cls._current.lives():
            cls._current = cls()
        return cls._current

    def lives(self) -> bool:
        """Return whether it still runs."""
        return self._process.poll() is None

    def start(self, order: Order) -> _Worker:
        """Order a worker; where that is in vain, it counts as crashed."""
        self._workers[order.worker] = worker = _Worker(self, order.processes)
        with contextlib.suppress(BrokenPipeError):
            self._orders.write(order.line())
        return worker

    def poll(self) -> None:
        """Read what it has told since the last time."""
        while told := self._answers.read(1 << 16):
            *lines, self._unread = (self._unread + told).split(b"\n")
            for line in lines:
                self._take(event(line))

    def copy_errors(self, log: Path) -> None:
        """Write what it has said to its stderr, if anything, into a file."""
        if size := os.fstat(self._errors).st_size:
            with contextlib.suppress(OSError):
                log.write_bytes(os.pread(self._errors, size, 0))

    def _dismiss(self) -> None:
        """Let it carry out what was ordered, and end; its workers are not its own."""
        if not self._workers:
            self._process.kill()
        self._orders.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_DISMISSED_WITHIN)
        self._answers.close()

    def _take(self, what: Started | Ended) -> None:
        """Write down what one line said; a short-lived process may end before it was started."""
        if isinstance(what, Started):
            self._workers[what.worker].started[what.pid] = Owner.of(what.pid)
        else:
            self._workers[what.worker].ended[what.pid] = what.status
