"""Watches over a worker from a thread of its own: stop requests, clock, heartbeat, progress."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from flexhpc.atomic import Whereabouts
from flexhpc.store import Claim
from flexhpc.worker.place import Place
from flexhpc.worker.signals import Stop
from flexhpc.worker.task import TaskFile


class Watchdog:
    """The training loop only ever asks a flag, so that nothing slow happens between its steps.

    Attributes:
        stop: set by signals, the clock, the stop file, or the owner's death.
        cancelled: the stop file is there, or the owner or the run folder is gone: nobody wants
            this job to go on.
        lost: the claim in hand is no longer ours.
    """

    def __init__(self, task: TaskFile, place: Place, stop: Stop) -> None:
        self.task, self.place, self.stop = task, place, stop
        self.cancelled = False
        self.lost = threading.Event()
        self.claim: Claim | None = None
        self.progress: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._launch = Whereabouts(Path(task.stop).parent)
        self._listen()
        threading.Thread(target=self._watch, daemon=True, name="watchdog").start()

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

    def close(self) -> None:
        """End the watch."""
        self._over.set()

    def _watch(self) -> None:
        # Also while a stopping worker saves: until the claim is given back.
        while not self._over.wait(self.task.beat):
            try:
                self._listen()
            except OSError as error:
                print(f"cannot see whether to stop: {error}", flush=True)
            with self._lock:
                self._beat()

    def _listen(self) -> None:
        owner = self.task.owner
        gone = self._launch.gone()
        if gone or Path(self.task.stop).exists() or (owner is not None and not owner.lives()):
            self.cancelled = True
            self.stop.set("the run folder was moved or removed" if gone else "cancelled")
        left = self.place.seconds_left()
        if left is not None and left < self.task.stop_before:
            self.stop.set(f"{left:.0f} s before the end of the allocation")

    def _beat(self) -> None:
        try:
            if self.claim is not None and not self.claim.beat(self.progress):
                self.lost.set()
        except OSError as error:
            print(f"heartbeat not written: {error}", flush=True)
