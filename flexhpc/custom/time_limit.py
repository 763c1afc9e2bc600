"""Limit the run time of custom code."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import Any

from flexhpc.errors import PointError, one_line_message

_active_limits: list[TimeLimit] = []
"""Time limits in effect in this process, from the outermost to the innermost."""


class TimeLimitExceeded(BaseException):
    """Raised in a block that exceeds its time limit.

    It is not a subclass of Exception, because the code in the block may catch Exception.
    """


class TimeLimit:
    """Context manager that raises :class:`TimeLimitExceeded` in a block that exceeds a time limit.

    It can be used several times. Entering it again inside its own block does not restart the timer.
    It uses SIGALRM, so it has no effect outside the main thread. The previous signal handler and
    timer are restored on exit. A call into C that never returns to Python is not interrupted.

    Args:
        seconds: time limit of the block.
        label: description of the block in the error message.
    """

    def __init__(self, seconds: float, label: str) -> None:
        self.seconds, self.label = seconds, label
        self._previous_handler: Any = None
        self._entered_at = self._previous_remaining = 0.0
        self._depth = 0

    def __enter__(self) -> None:
        self._depth += 1
        if self._depth > 1:  # for example a network that calls itself
            return
        if threading.current_thread() is threading.main_thread():
            self._entered_at = time.monotonic()
            self._previous_handler = signal.signal(signal.SIGALRM, self._on_alarm)
            self._previous_remaining, _ = signal.setitimer(signal.ITIMER_REAL, self.seconds)
            _active_limits.append(self)

    def __exit__(self, *_: object) -> None:
        self._depth = max(self._depth - 1, 0)
        if self._depth == 0:
            self.deactivate()

    def deactivate(self) -> None:
        """Deactivate the limit, even if it was entered several times."""
        self._depth = 0
        if self in _active_limits:
            _active_limits.remove(self)
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._previous_handler)
            if self._previous_remaining:
                spent = time.monotonic() - self._entered_at
                signal.setitimer(signal.ITIMER_REAL, max(self._previous_remaining - spent, 1e-3))

    def _on_alarm(self, signal_number: int, frame: FrameType | None) -> None:
        self.deactivate()
        raise TimeLimitExceeded(f"{self.label} exceeded its time limit of {self.seconds:g} s")


@contextlib.contextmanager
def time_limit_as_point_error() -> Iterator[None]:
    """Convert TimeLimitExceeded raised in the ``with`` block to PointError; print the traceback.

    At the end of the block, limits that were entered in it but not exited are deactivated. Such
    limits occur because a forward hook exits the limit of a forward pass, and torch does not call
    this hook after SystemExit, even with ``always_call=True``.
    """
    depth = len(_active_limits)
    try:
        try:
            yield
        finally:
            while len(_active_limits) > depth:
                _active_limits[-1].deactivate()
    except TimeLimitExceeded as error:
        traceback.print_exception(error)
        raise PointError(one_line_message(error)) from None
