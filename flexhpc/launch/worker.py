"""A worker: claims points one after the other and measures them, until none is left."""

from __future__ import annotations

import os
import signal
import threading
import traceback
from pathlib import Path
from typing import Any

import torch

from flexhpc.errors import Interrupted, PointError
from flexhpc.launch.profile import WORKER_GPU
from flexhpc.launch.task import TaskFile
from flexhpc.measure import Watch, choose_device, measure
from flexhpc.spec import Point, checked
from flexhpc.store import Claim, RunFolder, read, read_claim, take
from flexhpc.training import Group

_BEAT = 1.0


class Sentinel:
    """Watches over a worker from a thread of its own: stop requests, owner, heartbeat, progress.

    The training loop only ever asks a flag, so that nothing slow happens between its steps.
    """

    def __init__(self, task: TaskFile) -> None:
        self.task = task
        self.stop = threading.Event()
        self.lost = threading.Event()
        self.claim: Claim | None = None
        self.progress: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._listen()
        threading.Thread(target=self._watch, daemon=True, name="sentinel").start()

    def guard(self, claim: Claim | None) -> None:
        """Keep this claim fresh from now on; None when there is nothing to keep."""
        with self._lock:
            self.claim, self.progress = claim, {}
            self.lost.clear()

    def stopping(self) -> bool:
        """Return whether the measurement in hand must stop."""
        return self.stop.is_set() or self.lost.is_set()

    def note(self, progress: dict[str, Any]) -> None:
        """Take the latest progress; it goes out with the next heartbeat."""
        self.progress = progress

    def _watch(self) -> None:
        while not self.stop.wait(_BEAT):
            self._listen()
            with self._lock:
                self._beat()

    def _listen(self) -> None:
        owner = self.task.owner
        if Path(self.task.stop).exists() or (owner is not None and not owner.lives()):
            self.stop.set()

    def _beat(self) -> None:
        try:
            if self.claim is not None and not self.claim.beat(self.progress):
                self.lost.set()
        except OSError as error:
            print(f"heartbeat not written: {error}", flush=True)


def work(task: TaskFile) -> int:
    """Measure every point of the run that nobody else measures; returns how many failed.

    A point that fails is written down with one line and left; the others go on.
    """
    if (gpu := os.environ.get(WORKER_GPU)) is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # before CUDA wakes up
    device = choose_device(task.threads)
    sentinel = Sentinel(task)
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, lambda *_: sentinel.stop.set())
    run = RunFolder(Path(task.run))
    _, points = checked(Path(task.spec))
    failed = 0
    for point in points:
        if sentinel.stopping():
            break
        failed += _work_on(point, run, task, sentinel, device)
    return failed


def _work_on(
    point: Point, run: RunFolder, task: TaskFile, sentinel: Sentinel, device: torch.device
) -> bool:
    """Measure one point if it is free; True if it failed."""
    before = read_claim(run.claim(point.id))
    if before is not None and before.state == "failed" and before.launch == task.launch:
        return False
    if _is_measured(run.point(point.id)):
        return False
    log = str(Path(task.stop).parent)
    claim = take(run.claim(point.id), run.lock, launch=task.launch, log=log)
    if claim is None:
        return False
    sentinel.guard(claim)
    try:
        if claim.record.deaths > task.retries:
            raise PointError(
                f"its worker died {claim.record.deaths} times (killed, or out of memory?)"
            )
        _measure(point, run, task, sentinel, device)
    except Interrupted:
        _release(claim, sentinel, "stopped")
        return False
    except PointError as error:
        print(f"{point.id} {point.label}: {error}", flush=True)
        _release(claim, sentinel, "failed", str(error))
        return True
    except Exception as error:
        traceback.print_exc()
        what = " ".join(str(error).split())
        _release(claim, sentinel, "failed", f"{type(error).__name__}: {what}")
        return True
    _release(claim, sentinel, "done")
    return False


def _measure(
    point: Point, run: RunFolder, task: TaskFile, sentinel: Sentinel, device: torch.device
) -> None:
    if _is_measured(run.point(point.id)):
        return
    assert sentinel.claim is not None
    watch = Watch(
        stopping=sentinel.stopping,
        holds=sentinel.claim.held,
        progress=sentinel.note,
        checkpoint_every=task.checkpoint_every,
    )
    estimate = measure(point, run, Group(device), watch)
    print(f"{point.id} {point.label}: emc {estimate.emc} ({estimate.censored})", flush=True)


def _is_measured(path: Path) -> bool:
    """Return whether a point has its estimate; a damaged file is left to :func:`measure`."""
    try:
        record = read(path)
    except PointError:
        return False
    return record is not None and record.estimate is not None


def _release(claim: Claim, sentinel: Sentinel, state: Any, message: str = "") -> None:
    """Give a claim back; first of all no heartbeat may say any more that it is held."""
    sentinel.guard(None)
    try:
        claim.release(state, message)
    except OSError as error:
        print(f"claim not released: {error}", flush=True)
