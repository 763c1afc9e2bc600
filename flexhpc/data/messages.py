"""How the errors of other libraries are said."""

from __future__ import annotations


def one_line(error: Exception) -> str:
    """Return an error's message on one line, cut where it is long."""
    return " ".join(str(error).split())[:200] or type(error).__name__
