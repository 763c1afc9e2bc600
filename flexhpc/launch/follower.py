"""Tracking beside a sweep: a process of its own keeps MLflow up to date."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from flexhpc.store import RunFolder
from flexhpc.worker.task import TaskFile

_SYNC_AFTER_FAILURE = 15.0


@contextlib.contextmanager
def tracking(task: TaskFile, uri: str | None, interruptions: Callable[[], int]) -> Iterator[None]:
    """Keep MLflow up to date inside; at the end wait until it has caught up.

    The wait ends early on another Ctrl-C, or when the server does not answer.

    Args:
        task: of the launch.
        uri: of the server; None for a database in the run folder, ``none`` for no tracking.
        interruptions: returns how often the user asked to stop.
    """
    if uri == "none":
        yield
        return
    log = Path(task.spec).with_name("tracking.log")
    command = [sys.executable, "-m", "flexhpc.tracking.follow", task.run, task.spec]
    if uri:
        command.append(uri)
    with log.open("w") as output:
        follower = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield
    finally:
        assert follower.stdin is not None
        follower.stdin.close()
        began, asked, given_up = time.monotonic(), interruptions(), False
        while follower.poll() is None:
            failing = "warning: " in _said(log)
            late = time.monotonic() - began > _SYNC_AFTER_FAILURE
            given_up = interruptions() > asked or (failing and late)
            if given_up:
                follower.kill()
                follower.wait()
            time.sleep(0.1)
        if follower.returncode and not given_up:
            with contextlib.suppress(OSError), log.open("a", errors="replace") as output:
                output.write(
                    f"\nwarning: what keeps MLflow up to date died ({follower.returncode}); "
                    f"the point files have all results: `flexhpc sync {task.run}` brings them in\n"
                )


def _said(log: Path) -> str:
    """Return what a log holds; nothing, if its run was moved."""
    with contextlib.suppress(OSError):
        return log.read_text(errors="replace")
    return ""


def tracking_warnings(run: RunFolder) -> list[str]:
    """Return what tracking had to say in the last launch."""
    logs = sorted(run.jobs.glob("*/tracking.log"), key=lambda path: path.stat().st_mtime)
    if not logs:
        return []
    lines = logs[-1].read_text(errors="replace").splitlines()
    return list(dict.fromkeys(line for line in lines if line.startswith("warning: ")))
