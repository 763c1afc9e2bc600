"""Fork server: imports the modules of a worker once per machine and forks workers from them.

Usage: python -m flexhpc.worker.fork_server

Each line of stdin is an :class:`~flexhpc.worker.orders.Order`. For each worker process, a
:class:`~flexhpc.worker.orders.Started` and an :class:`~flexhpc.worker.orders.Ended` line are
written to stdout; lines of different processes may interleave. The server exits when stdin is
closed; its workers keep running.

The fork server of multiprocessing is not used: it runs the caller's main script again in every
process, and the caller cannot exit before the workers.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import secrets
import signal
import sys
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

from flexhpc.errors import InputError, PointError
from flexhpc.imports import quick_imports
from flexhpc.worker.entry import begin
from flexhpc.worker.orders import Ended, Order, Started
from flexhpc.worker.place import Place
from flexhpc.worker.signals import Stop
from flexhpc.worker.task import TaskFile

WARM = "flexhpc.worker.work"
"""Module that imports everything a worker needs, including torch; given by name, because processes
that start a fork server must not import torch."""


class _Server:
    """Parent process of all workers."""

    def __init__(self) -> None:
        self._running: dict[int, str] = {}

    def serve(self) -> None:
        """Fork the processes of a worker for each line of stdin, until stdin is closed."""
        signal.signal(signal.SIGCHLD, self._tell_endings)
        for line in sys.stdin:
            order, token = Order(**json.loads(line)), secrets.token_hex(16)
            _expand_spec(order)
            for rank in range(order.processes):
                with _no_child_ends():
                    pid = _fork(order, rank, token)
                    self._running[pid] = order.worker
                    _tell(Started(worker=order.worker, pid=pid))

    def _tell_endings(self, *_: object) -> None:
        """Report every child that ended; one SIGCHLD may stand for several children."""
        while self._running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            status = os.waitstatus_to_exitcode(status)
            _tell(Ended(worker=self._running.pop(pid), pid=pid, status=status))


def _expand_spec(order: Order) -> None:
    """Expand the spec of a launch once for all its workers; a worker reports any error itself."""
    work = importlib.import_module(WARM)
    with contextlib.suppress(PointError, InputError, OSError):
        work.points_of(TaskFile.read(Path(order.task)).spec)


@contextlib.contextmanager
def _no_child_ends() -> Iterator[None]:
    """Block SIGCHLD, so that the end of a child is not handled before its start is recorded."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])


def _tell(what: Started | Ended) -> None:
    """Write an event to stdout and ignore a closed pipe.

    A line is shorter than PIPE_BUF, so a single write is atomic.
    """
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(asdict(what)).encode() + b"\n")


def _fork(order: Order, rank: int, token: str) -> int:
    """Fork one process of a worker; return its process id in the parent.

    The child does not return from this function.

    Args:
        order: worker to start.
        rank: rank of the process within the worker.
        token: secret by which the processes of the worker authenticate each other.
    """
    if pid := os.fork():
        return pid
    status = 1
    try:
        _become_worker(order, rank)
        begin(Path(order.task), _place(order, rank, token), Stop.on_signals())
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        _end(status)


def _become_worker(order: Order, rank: int) -> None:
    """Detach a forked process from the server: session, signals, environment and streams."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    os.environ.clear()
    os.environ.update(order.environment)
    os.chdir(order.cwd)
    silent = os.open(os.devnull, os.O_RDONLY)
    out, err = (
        os.open(order.log(rank, stream), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        for stream in ("out", "err")
    )
    for here, there in ((silent, 0), (out, 1), (err, 2)):
        os.dup2(here, there)
        os.close(here)


def _place(order: Order, rank: int, token: str) -> Place:
    return Place(
        rank=rank,
        size=order.processes,
        local_rank=rank,
        host="127.0.0.1",
        token=token,
        job=Path(order.worker).name,
        index=0,
        log=str(order.log(rank, "err")),
        ends=None,
    )


def _end(status: int) -> NoReturn:
    """Exit a worker without running the exit handlers inherited from the server."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def main() -> None:
    """Import the modules of a worker, then serve orders."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # from the terminal; the sweep decides when to stop
    with quick_imports():
        importlib.import_module(WARM)
        gc.freeze()  # keeps memory shared with children: a collection would copy pages
    _Server().serve()
    os._exit(0)  # skips the shutdown of torch, which would delay the exit of the sweep


if __name__ == "__main__":
    main()
