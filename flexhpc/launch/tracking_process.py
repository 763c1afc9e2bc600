"""MLflow tracking during a sweep, in a separate process."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from flexhpc.imports import child_environment
from flexhpc.store import RunFolder
from flexhpc.worker.task import TaskFile

_SYNC_TIMEOUT = 15.0  # seconds


@contextlib.contextmanager
def tracking_process(
    task: TaskFile, uri: str | None, interruptions: Callable[[], int]
) -> Iterator[None]:
    """Log to MLflow in a child process during a ``with`` block; then wait until the process exits.

    During this wait, the process is killed if the user requests a stop (for example with Ctrl-C),
    if the server still does not respond after 15 s, or if the run folder was moved or removed.

    Args:
        task: content of the task file of the launch.
        uri: URI of an MLflow server, ``"none"`` to disable tracking, or None to use a database in
            the run folder.
        interruptions: function that returns how many times the user has requested a stop.
    """
    if uri == "none":
        yield
        return
    log = Path(task.spec).with_name("tracking.log")
    command = [sys.executable, "-P", "-m", "flexhpc.tracking.periodic_sync", task.run, task.spec]
    if uri:
        command.append(uri)
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True,
            env=child_environment(),
        )  # fmt: skip
    try:
        yield
    finally:
        assert process.stdin is not None
        process.stdin.close()
        deadline = time.monotonic() + _SYNC_TIMEOUT
        interruptions_before, was_killed = interruptions(), False
        while process.poll() is None:
            is_failing = "warning: " in _read_log(log) and time.monotonic() > deadline
            was_killed = is_failing or interruptions() > interruptions_before or not log.exists()
            if was_killed:
                process.kill()
                process.wait()
            time.sleep(0.1)
        if process.returncode and not was_killed:
            with contextlib.suppress(OSError), log.open("a", errors="replace") as output:
                output.write(
                    f"\nwarning: the MLflow process died (exit status {process.returncode}); run "
                    f"`flexhpc sync {shlex.quote(task.run)}` to log the results, which are in the "
                    "point files\n"
                )


def _read_log(log: Path) -> str:
    """Return the text of a log file; an empty string if the file cannot be read."""
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
