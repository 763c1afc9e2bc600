"""How packages are imported: when they are asked for, and without the garbage collector."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any


def offering(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a package that imports what it offers when asked (PEP 562).

    Args:
        package: its name; modules: what it offers -> the module of it where that is.
    """

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package} has no attribute {name}")
        return getattr(import_module(f"{package}.{modules[name]}"), name)

    return get


@contextlib.contextmanager
def quick_imports() -> Iterator[None]:
    """Import something large in here: the collector waits until it is over.

    Modules that are being loaded are no garbage, and looking through their objects again and again
    is up to a tenth of the time (bench/worker_start.py).
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
