"""The command line interface ``flexhpc``."""

from flexhpc.cli.app import main

__all__ = ["main"]
