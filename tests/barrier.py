"""A barrier for tests that act in the middle of a training run.

The spec has the network ``family: "barrier_net:Net"``; :class:`Barrier` writes its module next to
the spec. A process that trains this network counts forward passes in train mode. After the number
of passes that the test allows, it waits until the test changes the state of the barrier, so tests
do not depend on the speed of the machine. The results are bitwise equal to those without a barrier.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil

TIMEOUT = 300.0
"""Timeout in seconds, enough for the slowest machine."""

NETWORK = '''\
"""A perceptron whose training runs wait at the barrier of a test."""

import contextlib
import math
import os
import time
from pathlib import Path

from torch import nn

FOLDER = Path(__file__).parent / "barrier"
state, remaining = None, 0.0


def read_state():
    """Return the state of the barrier, and the number of passes that it allows."""
    try:
        text = (FOLDER / "state").read_text()
    except FileNotFoundError:
        return "", math.inf
    return text, float(text.split()[1])


def pass_barrier():
    """Count a forward pass; wait if the barrier allows no more."""
    global state, remaining
    if state is None:
        state, remaining = read_state()
    remaining -= 1
    if remaining >= 0:
        return
    mark = FOLDER / f"waiting-{os.getpid()}"
    with contextlib.suppress(OSError):  # the folder is read-only inside a container
        mark.write_text(state)
    while state == read_state()[0] and not state.endswith("slow"):
        time.sleep(0.01)
    with contextlib.suppress(OSError):
        mark.unlink()
    state, remaining = read_state()
    if state.endswith("slow"):
        time.sleep(0.2)


class Net(nn.Module):
    def __init__(self, shape, classes, width=8):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(math.prod(shape), width), nn.ReLU(), nn.Linear(width, classes)
        )

    def forward(self, inputs):
        if self.training:
            pass_barrier()
        return self.layers(inputs)
'''


def wait_for(
    condition: Callable[[], object],
    description: str | Callable[[], object],
    seconds: float = TIMEOUT,
) -> None:
    """Wait until a condition is true; fail after a timeout.

    Args:
        condition: the condition.
        description: of the condition, for the error message; or a function that returns a state.
        seconds: the timeout.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            state = description() if callable(description) else description
            raise AssertionError(f"waited {seconds:.0f} s for {state}")
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Return whether a process exists and is not a zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


class Barrier:
    """The barrier of the training runs of ``barrier_net:Net``; open at first.

    Args:
        folder: folder of the spec.
    """

    def __init__(self, folder: Path) -> None:
        (folder / "barrier_net.py").write_text(NETWORK)
        self._folder = folder / "barrier"
        self._folder.mkdir(exist_ok=True)
        self._changes = 0
        self._state = ""

    def hold(self, passes: int) -> None:
        """Let every process wait after this number of further forward passes.

        They are counted from the start of a process, or from its current position if it waits.
        """
        self._write(f"{passes} hold")

    def continue_slowly(self) -> None:
        """Let every waiting process continue slowly, with one pass in 0.2 s.

        A training run notices requests, such as to stop, only while it continues.
        """
        self._write("0 slow")

    def open(self) -> None:
        """Let every process continue."""
        self._write("inf open")

    def waiting(self) -> set[int]:
        """Return the ids of the processes that wait at the barrier."""
        return {
            int(mark.name.partition("-")[2])
            for mark in self._folder.glob("waiting-*")
            if _read_text(mark) == self._state and alive(int(mark.name.partition("-")[2]))
        }

    def wait(self, processes: int = 1, sweep: subprocess.Popen[str] | None = None) -> set[int]:
        """Wait until this number of processes wait at the barrier; return their ids.

        Args:
            processes: the number.
            sweep: their sweep; the test fails if it ends before.
        """

        def is_reached() -> bool:
            if sweep is not None and sweep.poll() is not None:
                output = sweep.communicate()[0]
                raise AssertionError(f"the sweep ended before the barrier was reached: {output}")
            return len(self.waiting()) >= processes

        wait_for(is_reached, f"{processes} training runs at the barrier")
        return self.waiting()

    def _write(self, state: str) -> None:
        self._changes += 1
        self._state = f"{self._changes} {state}"
        new = self._folder / "state.new"
        new.write_text(self._state)
        os.replace(new, self._folder / "state")


def _read_text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
