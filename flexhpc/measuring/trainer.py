"""Probes with a custom trainer, run in a separate process that can be killed at any time."""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import Pipe

import numpy as np

from flexhpc.custom.code import LIVE
from flexhpc.custom.trainer import Answer, Task, train
from flexhpc.errors import Interrupted, PointError
from flexhpc.training import Callbacks, Group, Outcome

LACKS = "no gates, no giving up early, no curves, no checkpoint inside a probe"
"""Features that custom trainers do not support; stored in the record of each probe."""
_PROGRAM = "from flexhpc.custom.trainer import main; main({})"
_LOOK_EVERY, _TOLD_EVERY = 0.05, 1.0
_GRACE = 10.0
"""Seconds after its time limit in which a trainer may exit by itself and print a traceback."""


def run_trainer(task: Task, callbacks: Callbacks, group: Group) -> Outcome:
    """Call a custom trainer for one probe.

    Functions that were passed as objects are called in this process. All others are called in a
    child process, which is reused for the next probe because imports take time.

    Args:
        task: arguments of the trainer.
        callbacks: see :class:`Callbacks`. If ``should_stop`` returns True, the child process is
            killed.
        group: process group; must consist of this process only.

    Raises:
        PointError: the trainer failed, died or exceeded its time limit (a traceback is printed to
            stderr), or the group has several processes.
        Interrupted: asked to stop; the probe is restarted from scratch next time.
    """
    if group.size > 1:
        raise PointError(
            f"{task.trainer.key} trains in one process, and the profile gives a point "
            f"{group.size}; let it give one"
        )
    started, n = time.monotonic(), len(task.labels)
    told = -math.inf

    def look() -> None:
        nonlocal told
        if time.monotonic() - told >= _TOLD_EVERY:
            told = time.monotonic()
            callbacks.on_progress({"epoch": 0, "epochs": 0, "n_errors": n, "loss": math.nan})
        if callbacks.should_stop():
            raise Interrupted("asked to stop in the middle of a probe, which begins anew")

    look()
    if task.trainer.name.startswith(f"{LIVE}:"):
        answer = train(task)
    else:
        answer = _Process.of_this_process().ask(task, look)
    errors = int((~answer.fitted).sum())
    passes = task.budget.epochs or 1
    return Outcome(
        verdict="not_fit" if errors else "fit",
        n_errors=errors,
        loss=answer.loss,
        epochs=answer.epochs,
        steps=answer.steps,
        cost=answer.cost or task.budget.gradient_evaluations or passes * n,
        seconds=time.monotonic() - started,
        fitted=answer.fitted,
        metrics=dict(answer.readings),
        rejected=False,
        loss_curve=np.zeros(0, np.float32),
        error_curve=np.zeros(0, np.int32),
    )


class _Process:
    """A child Python process that calls trainers; it shares no state with this process."""

    _current: _Process | None = None

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._connection, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM.format(theirs.fileno())],
                pass_fds=[theirs.fileno()], start_new_session=True,
            )  # fmt: skip
        atexit.register(self.end)

    @classmethod
    def of_this_process(cls) -> _Process:
        """Return the running child of this process, or start one."""
        if cls._current is None or cls._current.owner != os.getpid() or not cls._current.lives():
            cls._current = cls()
        return cls._current

    def lives(self) -> bool:
        """Return whether the child is running."""
        return self._process.poll() is None

    def ask(self, task: Task, look: Callable[[], None]) -> Answer:
        """Call a trainer in the child process and return its answer.

        Args:
            task: arguments of the trainer.
            look: called repeatedly while waiting; the child is killed if it raises.

        Raises:
            PointError: the trainer failed, died or exceeded its time limit.
        """
        what, asked = task.trainer.key, time.monotonic()
        try:
            self._connection.send(task)
            while not self._connection.poll(_LOOK_EVERY):
                look()
                if time.monotonic() - asked > task.seconds + _GRACE:
                    raise PointError(f"{what} took longer than seconds: {task.seconds:g}")
            answer = self._connection.recv()
        except (EOFError, ConnectionError):
            self.end()
            raise PointError(f"{what} ended its process ({_cause(self._process)})") from None
        except BaseException:
            self.end()
            raise
        if isinstance(answer, PointError):
            raise answer
        assert isinstance(answer, Answer)
        return answer

    def end(self) -> None:
        """Kill the child and the processes that it started."""
        if self.owner == os.getpid():
            self._connection.close()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            atexit.unregister(self.end)


def _cause(process: subprocess.Popen[bytes]) -> str:
    """Describe how a process ended: exit status or signal."""
    status = process.returncode
    if status >= 0:
        return f"exit status {status}"
    hint = "; out of memory?" if status == -signal.SIGKILL else ""
    return signal.Signals(-status).name + hint
