"""Process that updates MLflow while a sweep runs; it exits when its stdin is closed.

If the tracking server does not respond, the process prints a warning and retries. Training runs are
not affected, and ``flexhpc sync`` can log the results later.
"""

from __future__ import annotations

import os
import select
import shlex
import sys
from pathlib import Path

from flexhpc.errors import one_line_message
from flexhpc.store import RunFolder
from flexhpc.tracking.state import local_uri
from flexhpc.tracking.sync import Syncer

_SYNC_EVERY = 2.0  # seconds
_RETRY_AFTER = 20.0  # seconds
_NICE = 10
"""Niceness of this process. Training runs get more CPU time, but MLflow is still updated on a busy
machine."""


def sync_periodically(run: RunFolder, spec: Path, uri: str) -> None:
    """Log the points of a launch to MLflow repeatedly until stdin is closed, then once more."""
    syncer = Syncer(run, uri, spec)
    warned = closed = False
    while True:
        wait = _SYNC_EVERY
        try:
            syncer.sync()
        except Exception as error:
            wait = _RETRY_AFTER
            if closed or not warned:
                command = f"flexhpc sync {shlex.quote(str(run.path))}"
                print(
                    f"warning: MLflow at {uri} cannot be updated ({one_line_message(error)}); no "
                    f"results are lost; run `{command}` later to log them from the point files",
                    flush=True,
                )
            warned = True
        if closed:
            return
        closed = bool(select.select([sys.stdin], [], [], wait)[0])


if __name__ == "__main__":
    os.nice(_NICE)
    folder = RunFolder(Path(sys.argv[1]))
    target = sys.argv[3] if len(sys.argv) > 3 else local_uri(folder)
    sync_periodically(folder, Path(sys.argv[2]), target)
