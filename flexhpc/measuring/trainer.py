"""Run probes with a custom trainer, usually in a child process that can be killed at any time."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable

import numpy as np

from flexhpc.child import Child
from flexhpc.custom.code import IN_PROCESS
from flexhpc.custom.trainer import TrainerCall, TrainerResult, train
from flexhpc.errors import Interrupted, PointError
from flexhpc.training import Callbacks, Group, Outcome

UNSUPPORTED = "no gates, no curves, no checkpoint inside a probe"
"""Features that custom trainers do not support; stored with each probe of a custom trainer."""
_POLL_EVERY, _REPORT_EVERY = 0.05, 1.0
_GRACE = 10.0
"""Seconds between the time limit and SIGKILL, during which a trainer can print a traceback."""


def run_trainer(call: TrainerCall, callbacks: Callbacks, group: Group) -> Outcome:
    """Call a custom trainer for one probe.

    A trainer that was passed as a Python object is called in this process. Any other trainer is
    called in a child process, which is reused for the next probe because imports take time.

    Args:
        call: the trainer and its arguments.
        callbacks: see :class:`Callbacks`. If ``should_stop`` returns True, the child process is
            killed.
        group: process group; must consist of this process only.

    Raises:
        PointError: the trainer failed, died or exceeded its time limit (a traceback is printed to
            stderr), or the group has several processes.
        Interrupted: a stop was requested; the probe is restarted from scratch next time.
    """
    if group.size > 1:
        raise PointError(
            f"{call.trainer.label} trains in one process, but the profile uses {group.size} "
            "processes for each point; set processes_per_node and nodes to 1"
        )
    started, n = time.monotonic(), len(call.labels)
    reported = -math.inf

    def report_and_check_stop() -> None:
        nonlocal reported
        if time.monotonic() - reported >= _REPORT_EVERY:
            reported = time.monotonic()
            callbacks.on_progress({"epoch": 0, "epochs": 0, "n_errors": n, "loss": math.nan})
        if callbacks.should_stop():
            raise Interrupted("stop requested; the current probe starts from scratch next time")

    report_and_check_stop()
    in_this_process = call.trainer.name.startswith(f"{IN_PROCESS}:")
    result = train(call) if in_this_process else _call_in_child(call, report_and_check_stop)
    errors = int((~result.fitted).sum())
    passes = call.budget.epochs or 1
    return Outcome(
        verdict="not_fit" if errors else "fit",
        n_errors=errors,
        loss=result.loss,
        epochs=result.epochs,
        steps=result.steps,
        cost=result.cost or call.budget.gradient_evaluations or passes * n,
        seconds=time.monotonic() - started,
        fitted=result.fitted,
        metrics=dict(result.metrics),
        rejected=False,
        loss_curve=np.zeros(0, np.float32),
        error_curve=np.zeros(0, np.int32),
    )


_children: list[Child] = []
"""Contains the child process that calls trainers; empty until that process is started."""


def _ensure_trainer_process() -> Child:
    """Return the child process that calls trainers; start it if none is running."""
    if not _children or _children[0].owner != os.getpid() or not _children[0].is_alive():
        _children[:] = [Child("flexhpc.custom.trainer:serve_trainer_calls")]
    return _children[0]


def _call_in_child(call: TrainerCall, on_wait: Callable[[], None]) -> TrainerResult:
    """Call a trainer in the child process and return its result.

    Args:
        call: the trainer and its arguments.
        on_wait: called repeatedly while waiting; if it raises an exception, the child is killed.

    Raises:
        PointError: the trainer failed, died or exceeded its time limit.
    """
    child, name, started = _ensure_trainer_process(), call.trainer.label, time.monotonic()
    try:
        child.connection.send(call)
        while not child.connection.poll(_POLL_EVERY):
            on_wait()
            if time.monotonic() - started > call.seconds + _GRACE:
                raise PointError(f"{name} exceeded its time limit of {call.seconds:g} s")
        result = child.connection.recv()
    except (EOFError, ConnectionError):
        child.kill()
        cause = child.cause_of_death()
        raise PointError(f"{name}: its process ended unexpectedly ({cause})") from None
    except BaseException:
        child.kill()
        raise
    if isinstance(result, PointError):
        raise result
    assert isinstance(result, TrainerResult)
    return result
