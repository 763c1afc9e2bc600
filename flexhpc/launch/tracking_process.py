"""MLflow tracking during a sweep, in a separate process."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from flexhpc.store import RunFolder
from flexhpc.worker.task import TaskFile

_SYNC_TIMEOUT = 15.0  # seconds


@contextlib.contextmanager
def tracking(task: TaskFile, uri: str | None, interruptions: Callable[[], int]) -> Iterator[None]:
    """Run a process that logs to MLflow during the block; after the block, wait until it has ended.

    During this wait, the process is killed if the user presses Ctrl-C again, if the server still
    does not respond after 15 s, or if the run folder was moved.

    Args:
        uri: URI of an MLflow server; the text ``none`` disables tracking. By default, a database in
            the run folder is used.
        interruptions: returns the number of stop requests by the user.
    """
    if uri == "none":
        yield
        return
    log = Path(task.spec).with_name("tracking.log")
    command = [sys.executable, "-m", "flexhpc.tracking.periodic_sync", task.run, task.spec]
    if uri:
        command.append(uri)
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield
    finally:
        assert process.stdin is not None
        process.stdin.close()
        deadline = time.monotonic() + _SYNC_TIMEOUT
        interruptions_before, was_killed = interruptions(), False
        while process.poll() is None:
            is_failing = "warning: " in _text_of(log) and time.monotonic() > deadline
            was_killed = is_failing or interruptions() > interruptions_before or not log.exists()
            if was_killed:
                process.kill()
                process.wait()
            time.sleep(0.1)
        if process.returncode and not was_killed:
            with contextlib.suppress(OSError), log.open("a", errors="replace") as output:
                output.write(
                    f"\nwarning: the MLflow process died (exit status {process.returncode}); run "
                    f"`flexhpc sync {task.run}` to log the results, which are in the point files\n"
                )


def _text_of(log: Path) -> str:
    """Return the content of a log; empty if it cannot be read, for example after a move."""
    with contextlib.suppress(OSError):
        return log.read_text(errors="replace")
    return ""


def tracking_warnings(run: RunFolder) -> list[str]:
    """Return the distinct warnings in the tracking log of the last launch."""
    logs = sorted(run.jobs.glob("*/tracking.log"), key=lambda path: path.stat().st_mtime)
    if not logs:
        return []
    lines = logs[-1].read_text(errors="replace").splitlines()
    return list(dict.fromkeys(line for line in lines if line.startswith("warning: ")))
