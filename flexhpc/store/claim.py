"""Claims: who measures a point right now, and how far they are. One writer per point.

A claim is a small file beside the point's record. It is taken under a lock, kept fresh by a
heartbeat, and taken over when its holder is dead: at once where the process can be looked up
(same host and pid namespace), otherwise when the heartbeat has been silent for ``SILENCE``. How
long it was silent is a matter between the file and its file system: hosts' clocks may differ.
"""

from __future__ import annotations

import os
import socket
import tempfile
import time
import uuid
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import psutil

from flexhpc.atomic import locked, pid_namespace, write_json
from flexhpc.state_file import read_as

SILENCE = 120.0
"""Seconds without a heartbeat after which a holder on another host counts as dead."""

State = Literal["running", "stopped", "failed", "done"]


@lru_cache(maxsize=1)
def this_host() -> str:
    """Return what identifies the place in which our process ids mean something."""
    return f"{socket.gethostname()}:{pid_namespace()}"


def process_birth(pid: int) -> float | None:
    """Return when a process started (seconds since the epoch), None if it is gone or a zombie."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return float(process.create_time())
    except psutil.Error:
        return None


def process_lives(pid: int, birth: float) -> bool:
    """Return whether a process is still the one that started at ``birth``."""
    actual_birth = process_birth(pid)
    return actual_birth is not None and abs(actual_birth - birth) < 2.0


@dataclass(frozen=True, kw_only=True)
class ClaimRecord:
    """What a claim file says.

    Attributes:
        state: running, stopped (interrupted), failed or done.
        launch: the launch that its holder belongs to.
        beat: time of the last heartbeat (seconds since the epoch), by its holder's clock.
        taken: time at which its holder took it, by the clock of the file system, as that of what
            it saves.
        deaths: how often in a row a holder of the same launch died over this point, counted from
            the last one that had saved something.
        attempts: how often the point was claimed, by whomever.
        job: the job of its holder, as ``123_4``.
        message: why it failed; log: where to read more.
        progress: of the probe in hand: n, epoch, epochs, n_errors, ...
    """

    state: State
    token: str
    launch: str
    host: str
    pid: int
    birth: float
    beat: float
    taken: float = 0.0
    deaths: int = 0
    attempts: int = 1
    job: str = ""
    message: str = ""
    log: str = ""
    progress: dict[str, Any] = field(default_factory=dict)

    def live(self, path: Path) -> bool:
        """Return whether its holder is (as far as can be known) still at work.

        Args:
            path: of the file that it was read from.
        """
        if self.state != "running":
            return False
        if self.host == this_host():
            return process_lives(self.pid, self.birth)
        return abs(_silent(path)) < SILENCE


_CLOCKS: dict[int, tuple[float, float]] = {}
"""By file system: what time it had, and what our monotonic clock said then."""
_ASK_AGAIN = 10.0


def _silent(path: Path) -> float:
    """Return for how long nobody has written a file (seconds), by its file system's own clock."""
    try:
        status = path.stat()
    except OSError:
        return SILENCE
    return _clock(path.parent, status.st_dev) - status.st_mtime


def _clock(folder: Path, device: int) -> float:
    """Return what time a folder's file system has; it is asked now and then."""
    now = time.monotonic()
    said, at = _CLOCKS.get(device, (0.0, -_ASK_AGAIN))
    if now - at >= _ASK_AGAIN:
        said, at = _its_time(folder), now
        _CLOCKS[device] = said, at
    return said + (now - at)


def _its_time(folder: Path) -> float:
    """Return what time a file system has: that of a file which is made now, and is gone again."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:  # we may not write there: our own clock, then
        return time.time()


def read_claim(path: Path) -> ClaimRecord | None:
    """Return the claim on a point, or None if nobody ever took one."""
    return read_as(ClaimRecord, path)


class Claim:
    """A claim that this process holds."""

    def __init__(self, path: Path, lock: Path, record: ClaimRecord) -> None:
        self.path, self.record = path, record
        self._lock = lock

    def held(self) -> bool:
        """Return whether the claim is still ours; False once another process took it over."""
        current = read_claim(self.path)
        return current is not None and current.token == self.record.token

    def beat(self, progress: dict[str, Any]) -> bool:
        """Show a sign of life; False (and nothing is written) if the claim is no longer ours."""
        return self._write(state="running", progress=progress)

    def release(self, state: State, message: str = "") -> None:
        """Give the claim back, with the reason if the point failed."""
        self._write(state=state, message=message)

    def _write(self, **changes: Any) -> bool:
        with locked(self._lock):
            if not self.held():
                return False
            self.record = ClaimRecord(**{**vars(self.record), "beat": time.time(), **changes})
            write_json(self.path, vars(self.record), durable=False, makes_folder=False)
            return True


def take(
    path: Path,
    lock: Path,
    *,
    launch: str,
    job: str = "",
    log: str = "",
    saved: float = 0.0,
    preempted: bool = False,
) -> Claim | None:
    """Claim a point, or return None if a living process holds it.

    Args:
        path: the claim's file.
        lock: the lock file of the run.
        launch: the launch that we belong to; job: our job.
        log: where our log goes.
        saved: when the point last got any further (seconds since the epoch).
        preempted: if the last holder died, then not over this point.

    Raises:
        FileNotFoundError: the run was moved or removed.
    """
    with locked(lock):
        path.parent.mkdir(exist_ok=True)
        before = read_claim(path)
        if before is not None and before.live(path):
            return None
        deaths = 0
        if before is not None and before.launch == launch:
            further = saved > before.taken
            died = before.state == "running" and not preempted
            deaths = (0 if further else before.deaths) + died
        pid = os.getpid()
        record = ClaimRecord(
            state="running",
            token=uuid.uuid4().hex,
            launch=launch,
            host=this_host(),
            pid=pid,
            birth=process_birth(pid) or time.time(),
            beat=time.time(),
            taken=_clock(path.parent, path.parent.stat().st_dev),
            deaths=deaths,
            attempts=before.attempts + 1 if before else 1,
            job=job,
            log=log,
        )
        write_json(path, vars(record), durable=False, makes_folder=False)
        return Claim(path, lock, record)
