"""The one door: the verbs of ``flexhpc``."""

from flexhpc.cli.main import main

__all__ = ["main"]
