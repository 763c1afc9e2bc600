"""Measure a point in the current process, for the Python API."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flexhpc.config import Point
from flexhpc.errors import PointError
from flexhpc.measuring.probe import choose_device
from flexhpc.store import RunFolder, read_claim
from flexhpc.training import Group
from flexhpc.worker.environment import Environment
from flexhpc.worker.signals import StopRequest
from flexhpc.worker.task import TaskFile
from flexhpc.worker.worker import Worker

_INTERRUPTED = "interrupted"


def measure_in_process(
    task: TaskFile, point: Point, on_progress: Callable[[dict[str, Any]], None]
) -> None:
    """Measure a point in this process.

    On Ctrl-C, the current training run is saved before KeyboardInterrupt is raised; this requires
    that the function is called in the main thread.

    Args:
        task: content of the task file.
        point: point to measure.
        on_progress: called with the progress of a training run after every epoch.

    Raises:
        PointError: the point cannot be measured, or another process is measuring it.
        KeyboardInterrupt: the user pressed Ctrl-C.
    """
    group = Group(choose_device(task.threads))
    stop = StopRequest()
    folder = Path(task.stop).parent
    environment = Environment(log=str(folder / "in_process.log"))
    with contextlib.ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():
            previous = signal.signal(signal.SIGINT, lambda *_: stop.set(_INTERRUPTED))
            stack.callback(signal.signal, signal.SIGINT, previous)
        worker = Worker(task, environment, stop, group, on_progress, verbose=False)
        stack.callback(worker.close)
        worker.measure_points([point])
    if stop.reason == _INTERRUPTED:
        raise KeyboardInterrupt
    if not folder.is_dir():  # a write may fail before the watchdog reports it
        raise PointError(f"{task.run}: the run folder was moved or removed")
    if stop.is_set():
        raise PointError(stop.reason)
    claim = read_claim(RunFolder(Path(task.run)).claim_file(point.id))
    if claim is not None and claim.state == "failed":
        raise PointError(claim.message)
    if claim is not None and claim.state == "running":
        host = claim.host.split(":")[0]
        raise PointError(f"process {claim.pid} on {host} is already measuring this point")
