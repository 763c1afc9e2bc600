"""flexhpc measures how much data a neural network can fit in practice."""

from __future__ import annotations


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version

        return version("flexhpc")
    raise AttributeError(f"module {__name__} has no attribute {name}")
