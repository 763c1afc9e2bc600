"""Lazy imports of package members, imports without garbage collection, and paths of children."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any


def lazy_getattr(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a module-level ``__getattr__`` that imports members on first access (PEP 562).

    Args:
        modules: maps the name of each member to the name of the submodule that defines it.
    """

    def import_member(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package} has no attribute {name}")
        return getattr(import_module(f"{package}.{modules[name]}"), name)

    return import_member


@contextlib.contextmanager
def imports_without_gc() -> Iterator[None]:
    """Disable the garbage collector in the ``with`` block, to import large packages faster.

    Imports create little garbage, but the collector takes about 10 % of the import time
    (bench/worker_start.py). The collection at process exit is also skipped, because it takes 0.6 s
    of CPU time after an import of torch or MLflow.
    """
    atexit.register(gc.freeze)
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def child_environment() -> dict[str, str]:
    """Return the environment of a child process that is started with Python's option -P.

    With -P, a child cannot import modules of the working directory. If this package was imported
    from the working directory (``python -m flexhpc`` in a checkout), PYTHONPATH adds it.
    """
    root = Path(__file__).resolve().parents[1]
    if root != Path.cwd():
        return dict(os.environ)
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
