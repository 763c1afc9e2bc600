"""The one door: the verbs of ``flexhpc``."""

from flexhpc.cli.app import main

__all__ = ["main"]
