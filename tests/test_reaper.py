"""A suite that is interrupted leaves nothing running."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import psutil
import pytest

from tests.conftest import FLEXHPC, REPOSITORY, SMALL
from tests.slurm.conftest import wait_for

MARK = "FLEXHPC_TEST_OF_REAPER"
LONG = SMALL.replace("epochs: 120", "epochs: 100000, gates: {plateau: off}")
ENDLESS = """
import signal, subprocess, sys, time
from tests import reaper
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
reaper.start()
subprocess.Popen([sys.argv[1], "sweep", "spec.yaml"], start_new_session=True)
time.sleep(1000)
"""


def marked(mark: str) -> list[list[str]]:
    """The command lines of all processes that have the mark, those that end meanwhile left out."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark:
                found.append(process.cmdline())
    return found


@pytest.mark.sweeps
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_what_a_test_process_started_ends_with_it(how: signal.Signals, tmp_path: Path) -> None:
    mark, server = uuid.uuid4().hex, "flexhpc.worker.fork_server"
    (tmp_path / "spec.yaml").write_text(LONG)
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS, str(FLEXHPC)], cwd=tmp_path, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, MARK: mark, "PYTHONPATH": str(REPOSITORY)},
    ) as test:  # fmt: skip
        try:
            wait_for(lambda: sum(server in line for line in marked(mark)) > 1, what="for a worker")
            test.send_signal(how)
            test.wait(timeout=60)
        finally:
            test.kill()
        wait_for(lambda: not marked(mark), seconds=30, what="for all to end")
