"""Concurrent probes of one point, each in a separate process on this machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flexhpc.config import Point
from flexhpc.data import Samples, load_samples
from flexhpc.errors import BatchOfOne, Interrupted, PeerLost
from flexhpc.measuring.probe import choose_device, run_probe
from flexhpc.search import Probe
from flexhpc.store import ProbeRecord
from flexhpc.training import Callbacks, Group

_LOOK_EVERY = 0.2
_PROGRESS = ("n", "repeat", "epoch", "epochs", "n_errors", "loss", "elapsed")
_STOP, _LOST, _END = 0, 1, 2
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)


@dataclass(frozen=True, kw_only=True)
class _Shared:
    """Shared memory of the pool, without locks: a process could die while it holds a lock.

    Attributes:
        flags: three bytes: save and stop (``_STOP``), the claim is lost, so write nothing
            (``_LOST``), exit (``_END``).
        progress: doubles, one row of ``_PROGRESS`` per process; n is 0 if the process is idle.
    """

    flags: Any
    progress: Any


class ProbePool:
    """Processes that train one probe each; they start on demand and exit with this process.

    Args:
        size: number of processes; visible GPUs are assigned to them round-robin.
        threads: CPU threads of each process.
        checkpoint_every: seconds between checkpoints of a probe.
    """

    def __init__(self, size: int, threads: int, checkpoint_every: float) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        self._shared = _Shared(
            flags=context.RawArray("b", 3), progress=context.RawArray("d", size * len(_PROGRESS))
        )
        numbers = context.SimpleQueue()
        for number in range(size):
            numbers.put(number)
        self._executor = ProcessPoolExecutor(
            size,
            mp_context=context,
            initializer=_begin,
            initargs=(self._shared, numbers, threads, checkpoint_every),
        )

    def run(
        self, point: Point, probes: Sequence[Probe], checkpoint: Callable[[Probe], Path],
        callbacks: Callbacks, done: Callable[[ProbeRecord], None],
    ) -> None:  # fmt: skip
        """Train probes of a point concurrently; return when all have finished.

        Args:
            point: the point.
            probes: the probes to train.
            checkpoint: returns the checkpoint path of a probe.
            callbacks: see :class:`Callbacks`.
            done: called in this process with the record of each probe when it has finished.

        Raises:
            PeerLost: a process died; its checkpoint is kept for the next attempt.
            Interrupted: asked to stop; all running probes have saved their state.
            BatchOfOne: a probe cannot be trained; all others are done.
            Exception: the first error of a probe or of ``done``; running probes are stopped.
        """
        self._shared.flags[_STOP] = self._shared.flags[_LOST] = 0
        running: set[Future[ProbeRecord]] = set()
        with _signals_wait():
            for probe in probes:
                try:
                    running.add(self._executor.submit(_train, point, probe, checkpoint(probe)))
                except BrokenProcessPool:
                    raise PeerLost("a process that trains probes died while it had none") from None
        errors: list[Exception] = []
        while running:
            ended, running = wait(running, _LOOK_EVERY, return_when=FIRST_COMPLETED)
            for future in ended - {f for f in ended if f.cancelled()}:
                try:
                    done(future.result())
                except BrokenProcessPool:
                    raise PeerLost("a process died over its probe (out of memory?)") from None
                except Exception as error:
                    errors.append(error)
            if callbacks.should_stop() or any(
                not isinstance(error, BatchOfOne) for error in errors
            ):
                self._shared.flags[_LOST] = not callbacks.owns_claim()
                self._shared.flags[_STOP] = 1
                for future in running:
                    future.cancel()
            self._tell(callbacks)
        if errors:
            raise min(errors, key=_urgency)
        if self._shared.flags[_STOP]:
            raise Interrupted("asked to stop between probes")

    def close(self) -> None:
        """Terminate the processes, which must be idle; one of them may have died already."""
        self._shared.flags[_END] = 1
        self._executor.shutdown()

    def _tell(self, callbacks: Callbacks) -> None:
        """Report the progress of the probe that has run the longest."""
        width = len(_PROGRESS)
        flat = list(self._shared.progress)
        rows = [flat[at : at + width] for at in range(0, len(flat), width)]
        busy = [dict(zip(_PROGRESS, row, strict=True)) for row in rows if row[0]]
        if busy:
            longest = max(busy, key=lambda row: row["elapsed"])
            real = ("loss", "elapsed")
            callbacks.on_progress({k: v if k in real else int(v) for k, v in longest.items()})


def _urgency(error: Exception) -> int:
    """Return the rank of an error, by which the one to raise is chosen: 0 for real failures."""
    return 1 if isinstance(error, Interrupted) else 2 if isinstance(error, BatchOfOne) else 0


@dataclass(kw_only=True)
class _Here:
    """State of a pool process."""

    shared: _Shared
    number: int
    group: Group
    checkpoint_every: float
    loaded: dict[str, Samples] = field(default_factory=dict)

    def samples(self, point: Point) -> Samples:
        """Return the data of a point; the data of the last point are cached."""
        if point.id not in self.loaded:
            self.loaded = {point.id: load_samples(point.data, point.seed)}
        return self.loaded[point.id]

    def note(self, progress: dict[str, Any]) -> None:
        """Write the progress of the current probe to the shared memory."""
        at = self.number * len(_PROGRESS)
        self.shared.progress[at : at + len(_PROGRESS)] = [float(progress[k]) for k in _PROGRESS]

    def idle(self) -> None:
        """Mark this process as idle."""
        self.shared.progress[self.number * len(_PROGRESS)] = 0.0


_here: list[_Here] = []


def _begin(shared: _Shared, numbers: Any, threads: int, checkpoint_every: float) -> None:
    """Initialize a pool process."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # the parent receives it too and stops the pool
    threading.Thread(target=_end_in_time, args=(shared,), daemon=True).start()
    number = numbers.get()
    group = Group(choose_device(threads, number))
    _here.append(
        _Here(shared=shared, number=number, group=group, checkpoint_every=checkpoint_every)
    )


def _end_in_time(shared: _Shared) -> None:
    """Exit this process when its parent dies or sets ``_END``, since SIGTERM is ignored here."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    while parent.is_alive() and not shared.flags[_END]:
        parent.join(_LOOK_EVERY)
    os._exit(1)


@contextlib.contextmanager
def _signals_wait() -> Iterator[None]:
    """Block signals, so that new processes inherit the mask and survive until they ignore them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _train(point: Point, probe: Probe, checkpoint: Path) -> ProbeRecord:
    """Train one probe in this pool process."""
    (here,) = _here
    flags = here.shared.flags
    callbacks = Callbacks(
        should_stop=lambda: bool(flags[_STOP]),
        owns_claim=lambda: not flags[_LOST],
        on_progress=here.note,
        checkpoint_every=here.checkpoint_every,
    )
    try:
        return run_probe(point, here.samples(point), probe, checkpoint, here.group, callbacks)
    finally:
        here.idle()
