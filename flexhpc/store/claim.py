"""Claims ensure that only one process at a time measures a point; they also record the progress.

A claim is a small JSON file next to the point file. A process (the holder) acquires the claim under
a lock and renews it with heartbeats. Another process takes the claim over when the holder is dead.
On the same host and in the same PID namespace, the holder is checked by its process id. Otherwise
the holder counts as dead ``HEARTBEAT_TIMEOUT`` seconds after its last heartbeat. The age of a
heartbeat is measured with the file system's clock, because the clocks of hosts may differ.
"""

from __future__ import annotations

import os
import socket
import tempfile
import time
import uuid
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from flexhpc.atomic import file_lock, pid_namespace, write_json
from flexhpc.state_file import read_state

HEARTBEAT_TIMEOUT = 120.0
"""Time without a heartbeat after which a holder on another host is considered dead (seconds)."""

State = Literal["running", "stopped", "failed", "done"]


@lru_cache(maxsize=1)
def this_host() -> str:
    """Return ``HOST:PID_NAMESPACE``; process ids are unique only within a PID namespace."""
    return f"{socket.gethostname()}:{pid_namespace()}"


def process_start_time(pid: int) -> float | None:
    """Return the start time of a process (seconds since the system booted); None if it is dead.

    The start time is read from ``/proc``. A start time since the epoch, such as that of psutil,
    changes when the system clock is set.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The second field is the name of the program, which may contain spaces and parentheses.
    state, *fields = stat.rpartition(b")")[2].split()
    return None if state in (b"Z", b"X") else int(fields[18]) / os.sysconf("SC_CLK_TCK")


def process_is_alive(pid: int, birth: float) -> bool:
    """Return whether the process ``pid`` that started at ``birth`` is still alive.

    The start time distinguishes this process from a later process with the same id.
    """
    return process_start_time(pid) == birth


@dataclass(frozen=True, kw_only=True)
class ClaimRecord:
    """Content of a claim file.

    Attributes:
        state: running, stopped (interrupted), failed or done.
        token: random id of this claim.
        launch: id of the launch that started the holder.
        host: host name and PID namespace of the holder; see :func:`this_host`.
        pid: process id of the holder.
        birth: start time of the holder (seconds since its host booted).
        beat: time of the last heartbeat (seconds since the epoch), by the holder's clock.
        taken: time at which the claim was acquired (seconds since the epoch), by the file system's
            clock, so that it can be compared with modification times of saved files.
        deaths: number of consecutive deaths of holders of this launch on the point, with no
            progress saved between the deaths.
        attempts: number of times that the point was claimed, including by earlier launches.
        job: job id of the holder, such as ``123_4``.
        message: why the point failed.
        log: path of the holder's log.
        progress: progress of the current probe; its keys include n, epoch, epochs and n_errors.
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

    def holder_is_alive(self, path: Path) -> bool:
        """Return whether the holder is alive, as far as this host can determine.

        Args:
            path: the claim file, whose modification time is the time of the last heartbeat, by the
                clock of its file system.
        """
        if self.state != "running":
            return False
        if self.host == this_host():
            return process_is_alive(self.pid, self.birth)
        try:
            status = path.stat()
        except OSError:
            return False
        now = _extrapolated_time(path.parent, status.st_dev)
        return abs(now - status.st_mtime) < HEARTBEAT_TIMEOUT


_CLOCKS: dict[int, tuple[float, float]] = {}
"""Device id of a file system -> last reading of its clock, and monotonic time of the reading."""
_CLOCK_INTERVAL = 10.0
"""Time after which the clock of a file system is read again (seconds)."""


def _extrapolated_time(folder: Path, device_id: int) -> float:
    """Return the time by the clock of a file system, extrapolated from the last reading.

    A reading is the modification time of a new file in the folder, or the time by the local clock
    if no file can be created.
    """
    now = time.monotonic()
    reading, read_at = _CLOCKS.get(device_id, (0.0, -_CLOCK_INTERVAL))
    if now - read_at >= _CLOCK_INTERVAL:
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                reading = os.fstat(file.fileno()).st_mtime
        except OSError:  # for example, no write permission
            reading = time.time()
        read_at = now
        _CLOCKS[device_id] = reading, read_at
    return reading + (now - read_at)


def read_claim(path: Path) -> ClaimRecord | None:
    """Read the claim on a point; return None if the file does not exist or is invalid."""
    return read_state(ClaimRecord, path)


class Claim:
    """A claim that this process acquired."""

    def __init__(self, path: Path, lock: Path, record: ClaimRecord) -> None:
        self.path, self._lock, self.record = path, lock, record

    def is_held(self) -> bool:
        """Return whether this process still holds the claim; False after a takeover."""
        current = read_claim(self.path)
        return current is not None and current.token == self.record.token

    def send_heartbeat(self, progress: dict[str, Any]) -> bool:
        """Write a heartbeat; return False without writing if another process took over the claim.

        Raises:
            OSError: the claim cannot be written.
        """
        return self._write_if_held(state="running", progress=progress)

    def release(self, state: State, message: str = "") -> None:
        """Release the claim, unless another process took it over.

        Args:
            state: final state, which is written to the claim file.
            message: why the point failed; empty if it did not fail.

        Raises:
            OSError: the claim cannot be written.
        """
        self._write_if_held(state=state, message=message)

    def _write_if_held(self, **changes: Any) -> bool:
        with file_lock(self._lock):
            if not self.is_held():
                return False
            self.record = replace(self.record, beat=time.time(), **changes)
            write_json(self.path, vars(self.record), durable=False, create_folder=False)
            return True


def acquire_claim(
    path: Path,
    lock: Path,
    *,
    launch: str,
    job: str = "",
    log: str = "",
    last_save_time: float = 0.0,
    was_preempted: bool = False,
) -> Claim | None:
    """Claim a point; return None if a running process holds the claim.

    Args:
        last_save_time: time at which progress on the point was last saved (seconds since the
            epoch).
        was_preempted: whether the previous holder was preempted, which does not count as a death.

    Raises:
        FileNotFoundError: the run folder was moved or removed.
    """
    with file_lock(lock):
        path.parent.mkdir(exist_ok=True)
        previous = read_claim(path)
        if previous is not None and previous.holder_is_alive(path):
            return None
        deaths = 0
        if previous is not None and previous.launch == launch:
            progressed = last_save_time > previous.taken
            died = previous.state == "running" and not was_preempted
            deaths = (0 if progressed else previous.deaths) + died
        pid = os.getpid()
        record = ClaimRecord(
            state="running",
            token=uuid.uuid4().hex,
            launch=launch,
            host=this_host(),
            pid=pid,
            birth=process_start_time(pid) or 0.0,
            beat=time.time(),
            taken=_extrapolated_time(path.parent, path.parent.stat().st_dev),
            deaths=deaths,
            attempts=previous.attempts + 1 if previous else 1,
            job=job,
            log=log,
        )
        write_json(path, vars(record), durable=False, create_folder=False)
        return Claim(path, lock, record)
