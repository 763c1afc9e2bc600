"""Imports once what every worker of a machine needs, and forks workers from that.

Usage: python -m flexhpc.worker.fork_server
Each line of stdin is an :class:`~flexhpc.worker.orders.Order`; stdout tells of each process of a
worker that it was started, and of its end, in any order. Workers outlive this process, which ends
with its stdin.

multiprocessing has such a server, but runs the caller's main script again in every process, and
its caller cannot end before the workers.
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

from flexhpc.imports import quick_imports
from flexhpc.worker.entry import begin
from flexhpc.worker.orders import Ended, Order, Started
from flexhpc.worker.place import Place
from flexhpc.worker.signals import Stop

WARM = "flexhpc.worker.work"
"""All that a worker needs, torch among it; by name, as whoever sends orders imports no torch."""


class _Server:
    """The parent of all workers."""

    def __init__(self) -> None:
        self._running: dict[int, str] = {}

    def serve(self) -> None:
        """Fork a worker for each line of stdin, until that ends."""
        signal.signal(signal.SIGCHLD, self._tell_endings)
        for line in sys.stdin:
            order, token = Order(**json.loads(line)), secrets.token_hex(16)
            for rank in range(order.processes):
                with _no_child_ends():
                    pid = _fork(order, rank, token)
                    self._running[pid] = order.worker
                    _tell(Started(worker=order.worker, pid=pid))

    def _tell_endings(self, *_: object) -> None:
        """Tell of all children that ended; a signal may stand for several."""
        while self._running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            status = os.waitstatus_to_exitcode(status)
            _tell(Ended(worker=self._running.pop(pid), pid=pid, status=status))


@contextlib.contextmanager
def _no_child_ends() -> Iterator[None]:
    """Put off news of children: none may end before it is known to run."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])


def _tell(what: Started | Ended) -> None:
    """Write a line, in one piece as it is short; the reader may be gone."""
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(asdict(what)).encode() + b"\n")


def _fork(order: Order, rank: int, token: str) -> int:
    """Return the id of a new process of a worker; it never comes back from here itself.

    Args:
        order: what was asked for; rank: of the process; token: by which its peers know it.
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
    """Leave behind what ties this process to its parent."""
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
    """End a worker, without what its parent would do at its own end."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def main() -> None:
    """Import everything, then serve."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # of a terminal: the sweep says when to stop
    with quick_imports():
        importlib.import_module(WARM)
        gc.freeze()  # memory that is shared with children stays shared
    _Server().serve()
    os._exit(0)  # at once: whoever waits for a sweep to be gone should not wait for torch


if __name__ == "__main__":
    main()
