"""Watchdog thread of a worker, which sends heartbeats and checks whether the worker must stop."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from flexhpc.atomic import FolderWatch
from flexhpc.store import Claim
from flexhpc.worker.environment import Environment
from flexhpc.worker.signals import StopRequest
from flexhpc.worker.task import TaskFile


class Watchdog:
    """Thread that sends the heartbeats of a worker and checks whether the worker must stop.

    The training loop itself only polls a flag, so that its updates are not delayed by I/O.

    Attributes:
        stop: stop request. The watchdog sets it shortly before the time limit, when the stop file
            exists, when ``TaskFile.owner`` ends, or when the run folder was moved or removed.
        cancelled: whether the job must not be requeued, because the stop file exists, the owner has
            ended, or the run folder was moved or removed.
        claim_lost: event that is set when another process has taken over the current claim.
        progress: progress of the current probe, which the next heartbeat writes.
    """

    def __init__(self, task: TaskFile, environment: Environment, stop: StopRequest) -> None:
        self.task, self.environment, self.stop = task, environment, stop
        self.cancelled = False
        self.claim_lost = threading.Event()
        self.claim: Claim | None = None
        self.progress: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._launch_folder = FolderWatch(Path(task.stop).parent)
        self._check_stop()
        threading.Thread(target=self._watch, daemon=True, name="watchdog").start()

    def set_claim(self, claim: Claim | None) -> None:
        """Send heartbeats for this claim from now on; if ``claim`` is None, send no heartbeats."""
        with self._lock:
            self.claim, self.progress = claim, {}
            self.claim_lost.clear()

    def should_stop(self) -> bool:
        """Return whether a stop was requested or the current claim was lost."""
        return self.stop.is_set() or self.claim_lost.is_set()

    def close(self) -> None:
        """Stop the thread."""
        self._closed.set()

    def _watch(self) -> None:
        # Heartbeats continue after a stop request, until the worker has saved its state.
        while not self._closed.wait(self.task.heartbeat_every):
            try:
                self._check_stop()
            except OSError as error:
                print(f"cannot check for a stop request: {error}", flush=True)
            try:
                with self._lock:
                    if self.claim is not None and not self.claim.send_heartbeat(self.progress):
                        self.claim_lost.set()
            except OSError as error:
                print(f"cannot write the heartbeat: {error}", flush=True)

    def _check_stop(self) -> None:
        owner = self.task.owner
        removed = self._launch_folder.check_removed()
        if removed or Path(self.task.stop).exists() or (owner is not None and not owner.is_alive()):
            self.cancelled = True
            self.stop.set("the run folder was moved or removed" if removed else "cancelled")
        remaining_seconds = self.environment.remaining_seconds()
        if remaining_seconds is not None and remaining_seconds < self.task.stop_before:
            self.stop.set(f"{remaining_seconds:.0f} s before the end of the allocation")
