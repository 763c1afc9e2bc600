"""Measure points of small specs in this process."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import torch

from flexhpc.config import Point, load_points
from flexhpc.measuring.point import measure
from flexhpc.measuring.pool import ProbePool
from flexhpc.store import RunFolder
from flexhpc.training import Callbacks, Group

CPU = Group(torch.device("cpu"))


def load_point(folder: Path, text: str, *overrides: str) -> Point:
    """Write a spec to ``spec.yaml``; return its first point."""
    path = folder / "spec.yaml"
    path.write_text(text)
    return load_points(path, overrides)[1][0]


def measure_and_count(point: Point, run: RunFolder) -> int:
    """Measure a point; return the number of updates of its training runs."""
    updates = itertools.count()
    measure(point, run, CPU, Callbacks(should_stop=lambda: next(updates) < 0))
    return next(updates)


def stop_after(updates: int) -> Callbacks:
    """Return callbacks that request a stop after a number of updates."""
    count = itertools.count(1)
    return Callbacks(should_stop=lambda: next(count) == updates)


@contextlib.contextmanager
def pool_of(size: int, checkpoint_every: float = 60.0) -> Iterator[ProbePool]:
    pool = ProbePool(size, 1, checkpoint_every)
    try:
        yield pool
    finally:
        pool.close()
