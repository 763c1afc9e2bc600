"""A limit on how long a call of somebody else's code may take."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

_running: list[TimeLimit] = []
"""Limits that were begun and have not ended, the innermost last."""


class TookTooLong(BaseException):
    """Raised where the code just is; no Exception, which it might catch."""


class TimeLimit:
    """Raises :class:`TookTooLong` in a block that takes longer; may be entered again afterwards.

    It goes by SIGALRM, so it works in the main thread, and has no effect in another one. Whoever
    used that signal before finds it as it was. A call into C that never comes back to Python is not
    ended.

    Args:
        seconds: the longest that the block may take; what: it is, for the message.
    """

    def __init__(self, seconds: float, what: str) -> None:
        self.seconds, self.what = seconds, what
        self._handler: Any = None
        self._entered = self._left = 0.0
        self._works = False
        self._depth = 0

    def __enter__(self) -> None:
        self._depth += 1
        if self._depth > 1:  # a network that calls itself
            return
        self._works = threading.current_thread() is threading.main_thread()
        if self._works:
            self._entered = time.monotonic()
            self._handler = signal.signal(signal.SIGALRM, self._late)
            self._left, _ = signal.setitimer(signal.ITIMER_REAL, self.seconds)
            _running.append(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._depth = max(self._depth - 1, 0)
        if self._depth == 0:
            self.end()

    def end(self) -> None:
        """End it, however often it was entered."""
        self._depth = 0
        if self._works:
            self._works = False
            _running.remove(self)
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._handler)
            if self._left:
                spent = time.monotonic() - self._entered
                signal.setitimer(signal.ITIMER_REAL, max(self._left - spent, 1e-3))

    def _late(self, number: int, frame: FrameType | None) -> None:
        self.end()
        raise TookTooLong(f"{self.what} took longer than seconds: {self.seconds:g}")


@contextlib.contextmanager
def none_left() -> Iterator[None]:
    """End the limits that were begun in a block and not ended in it.

    A hook of torch that is always called is not after SystemExit, for one.
    """
    before = len(_running)
    try:
        yield
    finally:
        while len(_running) > before:
            _running[-1].end()
