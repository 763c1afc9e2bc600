"""Errors a user can cause: shown as plain lines, never as a traceback."""

from __future__ import annotations

from collections.abc import Iterable

_LONGEST = 300


def one_line(error: BaseException) -> str:
    """Return the message of another library's error on one line, cut where it is long."""
    return " ".join(str(error).split())[:_LONGEST] or type(error).__name__


class InputError(Exception):
    """The user's input is wrong (exit status 2).

    Args:
        lines: what is wrong, one line per error; all errors that were found, not only the first.
    """

    def __init__(self, lines: str | Iterable[str]) -> None:
        self.lines: list[str] = [lines] if isinstance(lines, str) else list(lines)
        super().__init__("\n".join(self.lines))


class PointError(Exception):
    """A point cannot be measured (unreadable data, wrong shapes, a full disk): one clear line.

    The other points of the sweep go on.
    """


class NoData(PointError):
    """The data of a point cannot be opened here, so those of others with the same data cannot."""


class BatchOfOne(PointError):
    """A network with BatchNorm cannot be trained on a batch of one sample."""


class Interrupted(Exception):
    """The measurement was asked to stop; its state is saved and the same command resumes it."""


class PeerLost(Exception):
    """A process that trains the same probe is gone: nothing of the probe in hand can be said."""
