"""A barrier for tests that act in the middle of a training run.

A spec names the network as ``family: "gated:Net"``; :class:`Barrier` writes its module next to the
spec. In a process that trains it, forward passes in train mode are counted, and from the pass that
the test names on the training waits until the test moves the barrier. So a test never depends on
how fast a training run is. Without a barrier the training is the same, bit by bit.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil

PATIENCE = 300.0
"""Seconds within which something must become true by itself on the slowest machine."""

NETWORK = '''\
"""A perceptron whose training waits at the barrier of a test."""

import contextlib
import math
import os
import time
from pathlib import Path

from torch import nn

FOLDER = Path(__file__).parent / "barrier"
order, left = None, 0.0


def read():
    """Return the barrier's order and the passes that it allows."""
    try:
        text = (FOLDER / "order").read_text()
    except FileNotFoundError:
        return "", math.inf
    return text, float(text.split()[1])


def pass_barrier():
    """Count a forward pass; wait if the barrier allows no more."""
    global order, left
    if order is None:
        order, left = read()
    left -= 1
    if left >= 0:
        return
    mark = FOLDER / f"waiting-{os.getpid()}"
    with contextlib.suppress(OSError):  # the folder is read-only inside a container
        mark.write_text(order)
    while order == read()[0] and not order.endswith("creep"):
        time.sleep(0.01)
    with contextlib.suppress(OSError):
        mark.unlink()
    order, left = read()
    if order.endswith("creep"):
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
    condition: Callable[[], object], what: str | Callable[[], object], seconds: float = PATIENCE
) -> None:
    """Wait for something that must become true by itself.

    Args:
        condition: what is waited for; what: its name for the message, or a function that returns
            the state to report.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds:.0f} s for {what() if callable(what) else what}")
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Return whether a process exists and is no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


class Barrier:
    """Where the training runs of ``gated:Net`` wait. It is open at first.

    Args:
        folder: of the spec.
    """

    def __init__(self, folder: Path) -> None:
        (folder / "gated.py").write_text(NETWORK)
        self._folder = folder / "barrier"
        self._folder.mkdir(exist_ok=True)
        self._orders = 0
        self._order = ""

    def hold(self, passes: int) -> None:
        """Let every process make this many more forward passes, then wait.

        They are counted from the start of a process, or from where it waits now.
        """
        self._give(f"{passes} hold")

    def creep(self) -> None:
        """Let every waiting process go on with one pass in 0.2 s, until the barrier is moved.

        For what a training run notices by itself while it goes on, such as a request to stop.
        """
        self._give("0 creep")

    def open(self) -> None:
        """Let every process go on."""
        self._give("inf open")

    def waiting(self) -> set[int]:
        """Return the ids of the processes that wait at the barrier."""
        return {
            int(mark.name.partition("-")[2])
            for mark in self._folder.glob("waiting-*")
            if _text(mark) == self._order and alive(int(mark.name.partition("-")[2]))
        }

    def wait(self, processes: int = 1, sweep: subprocess.Popen[str] | None = None) -> set[int]:
        """Wait until so many processes wait at the barrier; return their ids.

        Args:
            sweep: what they work for; it must not end meanwhile.
        """

        def reached() -> bool:
            if sweep is not None and sweep.poll() is not None:
                output = sweep.communicate()[0]
                raise AssertionError(f"the sweep ended before the barrier was reached: {output}")
            return len(self.waiting()) >= processes

        wait_for(reached, f"{processes} training runs at the barrier")
        return self.waiting()

    def _give(self, order: str) -> None:
        self._orders += 1
        self._order = f"{self._orders} {order}"
        new = self._folder / "order.new"
        new.write_text(self._order)
        os.replace(new, self._folder / "order")


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
