"""Exceptions. The command line prints InputError and PointError without a traceback."""

from __future__ import annotations

from collections.abc import Iterable

_MAX_LENGTH = 300


def one_line_message(error: BaseException) -> str:
    """Return the message of an exception as one line of at most 300 characters.

    If the message is empty, return the name of the exception's type.
    """
    return " ".join(str(error).split())[:_MAX_LENGTH] or type(error).__name__


class InputError(Exception):
    """Invalid user input (exit status 2).

    Args:
        lines: messages of all errors, one line each.
    """

    def __init__(self, lines: str | Iterable[str]) -> None:
        self.lines: list[str] = [lines] if isinstance(lines, str) else list(lines)
        super().__init__("\n".join(self.lines))


class PointError(Exception):
    """A point cannot be measured, for example because of unreadable data or a full disk.

    The message is one line. The other points of the sweep are still measured.
    """


class NoData(PointError):
    """The data set of a point cannot be opened; other points with the same data set fail too."""


class BatchOfOne(PointError):
    """A network with batch normalisation cannot be trained on a batch of one sample."""


class Interrupted(Exception):
    """The measurement was stopped on request; its state is saved, and rerunning resumes it."""


class PeerLost(Exception):
    """Another process that trains the same probe was lost, so the probe has no result."""
