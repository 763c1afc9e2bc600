"""flexhpc measures how much data a neural network can fit in practice.

Public names are imported lazily on first access, so that ``import flexhpc`` is fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flexhpc.imports import lazy_getattr

if TYPE_CHECKING:
    from flexhpc.api.measure import measure
    from flexhpc.api.runs import Comparison, Measurement, Run, compare, load
    from flexhpc.api.sweep import sweep
    from flexhpc.errors import InputError, PointError

__all__ = [
    "Comparison", "InputError", "Measurement", "PointError", "Run", "compare", "load", "measure",
    "sweep",
]  # fmt: skip
_import_member = lazy_getattr(
    __name__,
    {
        "InputError": "errors", "PointError": "errors", "Measurement": "api.runs",
        "Run": "api.runs", "Comparison": "api.runs", "compare": "api.runs", "load": "api.runs",
        "measure": "api.measure", "sweep": "api.sweep",
    },
)  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("flexhpc")
    return _import_member(name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
