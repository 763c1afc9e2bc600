"""Fork server: import the modules of a worker once, and then fork all local workers.

Usage: python -m flexhpc.worker.fork_server

Each line of stdin is a :class:`StartRequest`. When a worker process starts or ends, a
:class:`ProcessEvent` is written to stdout as one line. The server exits when stdin is closed; its
workers keep running.

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
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from flexhpc.errors import InputError, PointError
from flexhpc.imports import imports_without_gc
from flexhpc.worker.entry import run_worker
from flexhpc.worker.environment import Environment
from flexhpc.worker.signals import StopRequest, exit_without_cleanup
from flexhpc.worker.task import TaskFile

WORKER_MODULE = "flexhpc.worker.worker"
"""Name of the module that imports everything a worker needs, including torch. It is imported by
name, because a process that starts a fork server also imports this file, but must not import torch.
"""


@dataclass(frozen=True, kw_only=True)
class StartRequest:
    """Request to start one worker.

    Attributes:
        worker: path prefix of the worker's log files; it identifies the worker.
        task: path of the task file.
        processes: number of processes that train each probe together.
        environment: all environment variables of the processes.
        cwd: working directory.
    """

    worker: str
    task: str
    processes: int
    environment: Mapping[str, str]
    cwd: str

    def to_json_line(self) -> bytes:
        """Format the request as one line of JSON, which the fork server reads."""
        return json.dumps(asdict(self)).encode() + b"\n"

    def log_path(self, rank: int, stream: str) -> Path:
        """Return the path of the log file of a process; the suffix is the same as in submitit.

        Args:
            rank: rank of the process.
            stream: ``out`` or ``err``.
        """
        return Path(f"{self.worker}_{rank}_log.{stream}")


@dataclass(frozen=True, kw_only=True)
class ProcessEvent:
    """Start or end of one process of a worker, as reported by the fork server.

    Attributes:
        worker: path prefix of the worker's log files, as in :class:`StartRequest`.
        pid: process id.
        status: None if the process has started. If the process has ended: its exit status, or -N
            if signal N killed the process.
    """

    worker: str
    pid: int
    status: int | None = None


def _serve(cached_points: Callable[[str], object]) -> None:
    """Fork one worker for each request that is read from stdin, until stdin is closed.

    Args:
        cached_points: function that expands a frozen spec and caches its points, so that the forked
            workers inherit them.
    """
    running: dict[int, str] = {}  # process id -> worker

    def report_exits(*_: object) -> None:
        """Report all children that have ended; several exits may cause only one SIGCHLD."""
        while running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            status = os.waitstatus_to_exitcode(status)
            _send_event(ProcessEvent(worker=running.pop(pid), pid=pid, status=status))

    signal.signal(signal.SIGCHLD, report_exits)
    for line in sys.stdin:
        request, token = StartRequest(**json.loads(line)), secrets.token_hex(16)
        # The workers inherit the cache. They expand the spec again after an error, and report it.
        with contextlib.suppress(PointError, InputError, OSError):
            cached_points(TaskFile.read(Path(request.task)).spec)
        for rank in range(request.processes):
            # The exit of a child must be handled after its start is recorded.
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
            pid = _fork(request, rank, token)
            running[pid] = request.worker
            _send_event(ProcessEvent(worker=request.worker, pid=pid))
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])


def _send_event(event: ProcessEvent) -> None:
    """Write an event to stdout; ignore a closed pipe.

    The write is atomic, because a line is shorter than PIPE_BUF.
    """
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(asdict(event)).encode() + b"\n")


def _fork(request: StartRequest, rank: int, token: str) -> int:
    """Fork one process of a worker; return its process id in the parent.

    The child does not return from this function.

    Args:
        token: secret by which the processes of the worker authenticate each other.
    """
    if pid := os.fork():
        return pid
    status = 1
    try:
        _become_worker(request, rank)
        environment = Environment(
            rank=rank,
            world_size=request.processes,
            local_rank=rank,
            token=token,
            job=Path(request.worker).name,
            log=str(request.log_path(rank, "err")),
        )
        run_worker(Path(request.task), environment, StopRequest.for_signals())
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        exit_without_cleanup(status)  # the exit handlers are those of the server


def _become_worker(request: StartRequest, rank: int) -> None:
    """Detach a forked process from the server.

    The process gets a new session, the default handling of SIGCHLD, and the environment, working
    directory and log files of the worker.
    """
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    os.environ.clear()
    os.environ.update(request.environment)
    os.chdir(request.cwd)
    no_input = os.open(os.devnull, os.O_RDONLY)
    out, err = (
        os.open(request.log_path(rank, stream), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        for stream in ("out", "err")
    )
    for source, target in ((no_input, 0), (out, 1), (err, 2)):
        os.dup2(source, target)
        os.close(source)


def main() -> None:
    """Import the modules of a worker, then serve requests."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # sent by the terminal; the sweep stops the workers
    with imports_without_gc():
        worker = importlib.import_module(WORKER_MODULE)
        gc.freeze()  # a garbage collection would copy pages shared with children
    _serve(worker.cached_points)
    os._exit(0)  # skip the shutdown of torch, which would delay the exit of the sweep


if __name__ == "__main__":
    main()
