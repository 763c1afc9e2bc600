"""Train several probes of one point concurrently, each in its own process on this machine."""

from __future__ import annotations

import contextlib
import threading
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

from flexhpc.child import Child
from flexhpc.config import Point
from flexhpc.data import Samples, load_samples
from flexhpc.errors import BatchOfOne, Interrupted, PeerLost, PointError, one_line_message
from flexhpc.measuring.probe import choose_device, run_probe
from flexhpc.search import Probe
from flexhpc.store import ProbeRecord
from flexhpc.training import Callbacks, Group

_POLL_EVERY = 0.2
_STOP, _DISCARD = "save and stop", "stop without saving"


class _Request(NamedTuple):
    """Request to train a probe."""

    point: Point
    probe: Probe
    checkpoint: Path


class ProbePool:
    """Child processes, each of which trains one probe at a time.

    Children are started on demand, and exit when this process exits.

    Args:
        size: maximum number of processes; visible GPUs are assigned to them round-robin.
        threads: CPU threads of each process.
        checkpoint_every: seconds between checkpoints of a probe.
    """

    def __init__(self, size: int, threads: int, checkpoint_every: float) -> None:
        self._size, self._threads, self._checkpoint_every = size, threads, checkpoint_every
        self._children: list[Child] = []

    def run(
        self, point: Point, probes: Sequence[Probe], checkpoint_path: Callable[[Probe], Path],
        callbacks: Callbacks, on_record: Callable[[ProbeRecord], None],
    ) -> None:  # fmt: skip
        """Train probes of a point concurrently; return when all have finished.

        Args:
            point: point to which the probes belong.
            checkpoint_path: function that returns the path of the checkpoint of a probe.
            callbacks: see :class:`Callbacks`.
            on_record: called in this process with the record of each probe that has finished.

        Raises:
            PeerLost: a process died; the checkpoint of its probe is kept for the next attempt.
            Interrupted: a stop was requested (all running probes have saved their state), or
                another process took over the claim.
            BatchOfOne: a probe failed because BatchNorm cannot be trained on a batch of one sample;
                all other probes have finished.
            Exception: the first error of a probe or of ``on_record``; running probes are stopped.
        """
        queue = list(probes)
        progress: dict[Child, dict[str, Any]] = {}  # of each child that trains a probe
        errors: list[Exception] = []
        stopping = False
        try:
            while queue or progress:
                for child in self._idle_children(progress, len(queue)):
                    probe = queue.pop(0)
                    child.connection.send(_Request(point, probe, checkpoint_path(probe)))
                    progress[child] = {}
                by_connection = {child.connection: child for child in progress}
                for connection in wait(list(by_connection), _POLL_EVERY):
                    child = by_connection[connection]  # type: ignore[index]
                    message = child.connection.recv()
                    if isinstance(message, dict):
                        progress[child] = message
                        continue
                    del progress[child]
                    try:
                        if isinstance(message, Exception):
                            raise message
                        on_record(message)
                    except Exception as error:
                        errors.append(error)
                failed = any(not isinstance(error, BatchOfOne) for error in errors)
                if not stopping and (failed or callbacks.should_stop()):
                    stopping = True
                    queue.clear()
                    for child in progress:
                        child.connection.send(_STOP if callbacks.owns_claim() else _DISCARD)
                # Report the progress of the probe that has run the longest.
                if running := [state for state in progress.values() if state]:
                    callbacks.on_progress(max(running, key=lambda state: state["elapsed"]))
        except (EOFError, ConnectionError):
            self.close()
            raise PeerLost("a process that trains probes died (out of memory?)") from None
        except BaseException:
            self.close()  # otherwise the next run would receive the results of this one
            raise
        if errors:
            raise min(errors, key=_error_priority)
        if stopping:
            raise Interrupted("stop requested between probes")

    def close(self) -> None:
        """Kill the processes; probes in progress do not save a checkpoint."""
        for child in self._children:
            child.kill()
        self._children = []

    def _idle_children(self, busy: Collection[Child], count: int) -> list[Child]:
        """Return at most ``count`` idle child processes; start new processes if necessary.

        Args:
            busy: the processes that train a probe.
            count: number of probes that wait for a process.
        """
        while (number := len(self._children)) < min(len(busy) + count, self._size):
            child = Child(f"{__name__}:serve_probes")
            child.connection.send((number, self._threads, self._checkpoint_every))
            self._children.append(child)
        return [child for child in self._children if child not in busy][:count]


def _error_priority(error: Exception) -> int:
    """Return the priority of an error (0 is the highest)."""
    return 2 if isinstance(error, BatchOfOne) else int(isinstance(error, Interrupted))


def serve_probes(connection: Connection) -> None:
    """Train the probes that a :class:`ProbePool` requests, one after the other.

    This function runs in a child process. The first message that it receives has three values: the
    index of the process, which selects its GPU; the number of CPU threads; and the seconds between
    checkpoints. For each probe it sends the progress as dicts, and then the record or the exception
    that ended the probe.
    """
    number, threads, checkpoint_every = connection.recv()
    group = Group(choose_device(threads, number))
    requests: SimpleQueue[_Request | None] = SimpleQueue()
    stop, discard = threading.Event(), threading.Event()
    last_sent = 0.0

    def receive() -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                message = connection.recv()
                if isinstance(message, _Request):
                    stop.clear()
                    discard.clear()
                    requests.put(message)
                else:
                    if message == _DISCARD:
                        discard.set()
                    stop.set()
        requests.put(None)

    def send_progress(state: dict[str, Any]) -> None:
        nonlocal last_sent
        if time.monotonic() - last_sent >= _POLL_EVERY:
            last_sent = time.monotonic()
            connection.send(state)

    callbacks = Callbacks(
        should_stop=stop.is_set,
        owns_claim=lambda: not discard.is_set(),
        on_progress=send_progress,
        checkpoint_every=checkpoint_every,
    )
    threading.Thread(target=receive, daemon=True).start()
    samples: dict[str, Samples] = {}  # of the last point
    while (request := requests.get()) is not None:
        point, probe, checkpoint = request
        try:
            if point.id not in samples:
                samples = {point.id: load_samples(point.data, point.seed)}
            record = run_probe(point, samples[point.id], probe, checkpoint, group, callbacks)
            connection.send(record)
        except (Interrupted, BatchOfOne, PointError) as error:
            connection.send(error)
        except (Exception, SystemExit) as error:  # raised by user code; may not be picklable
            traceback.print_exc()
            connection.send(PointError(f"{type(error).__name__}: {one_line_message(error)}"))
