"""Limit the run time of custom code."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

_active_limits: list[TimeLimit] = []
"""The innermost limit is the last."""


class TimeLimitExceeded(BaseException):
    """Raised in the limited code. A BaseException, because that code may catch Exception."""


class TimeLimit:
    """Context manager that raises :class:`TimeLimitExceeded` in a block that exceeds a time limit.

    It can be reused; entering it again inside its own block does not restart it. It uses SIGALRM,
    so it has no effect outside the main thread. The previous signal handler and timer are restored
    on exit. A call into C that never returns to Python is not interrupted.

    Args:
        seconds: time limit of the block.
        label: description of the block in the message.
    """

    def __init__(self, seconds: float, label: str) -> None:
        self.seconds, self.label = seconds, label
        self._handler_before: Any = None
        self._entered_at = self._remaining_before = 0.0
        self._active = False
        self._depth = 0

    def __enter__(self) -> None:
        self._depth += 1
        if self._depth > 1:  # for example a network that calls itself
            return
        self._active = threading.current_thread() is threading.main_thread()
        if self._active:
            self._entered_at = time.monotonic()
            self._handler_before = signal.signal(signal.SIGALRM, self._on_alarm)
            self._remaining_before, _ = signal.setitimer(signal.ITIMER_REAL, self.seconds)
            _active_limits.append(self)

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._depth = max(self._depth - 1, 0)
        if self._depth == 0:
            self.deactivate()

    def deactivate(self) -> None:
        """Deactivate the limit, regardless of how often it was entered."""
        self._depth = 0
        if self._active:
            self._active = False
            _active_limits.remove(self)
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._handler_before)
            if self._remaining_before:
                spent = time.monotonic() - self._entered_at
                signal.setitimer(signal.ITIMER_REAL, max(self._remaining_before - spent, 1e-3))

    def _on_alarm(self, number: int, frame: FrameType | None) -> None:
        self.deactivate()
        raise TimeLimitExceeded(f"{self.label} exceeded its time limit (seconds: {self.seconds:g})")


@contextlib.contextmanager
def deactivate_open_limits() -> Iterator[None]:
    """Deactivate the limits that were entered in the block and not exited.

    This is needed because torch skips forward hooks after SystemExit, even with
    ``always_call=True``.
    """
    depth = len(_active_limits)
    try:
        yield
    finally:
        while len(_active_limits) > depth:
            _active_limits[-1].deactivate()
