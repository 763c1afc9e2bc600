"""Sweeps with a known truth: made-up trainings at points whose EMCs are chosen."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from flexhpc.config import Point, checked
from flexhpc.store.status import PointStatus
from tests.analysis.made import status

SPEC = """\
name: planted
fixed:
  data: {source: fashion_mnist, labels: random}
  model: {family: mlp, depth: 1}
  search: {policy: bayes, start: 16}
grid:
  model.activation: [relu, tanh]
  model.width: [4, 8, 16]
"""
LIMIT = 60_000


def planted_points(folder: Path, seeds: int) -> list[Point]:
    """Return points of two activations, three widths and some seeds."""
    path = folder / "planted.yaml"
    path.write_text(f"{SPEC}  seed: {list(range(seeds))}\n")
    return checked(path)[1]


def measured(
    point: Point, emc: float, rng: np.random.Generator, *, limit: int = LIMIT, lapse: float = 0.02,
    params: int = 100, trainings: int = 14,
) -> PointStatus:  # fmt: skip
    """Return a point after trainings around an EMC, each of which may lapse.

    Args:
        emc: the n at which half of those that do not lapse fit; limit: samples that there are.
    """
    near = emc * np.exp(rng.normal(0, 0.25, trainings))
    outcomes = []
    for wanted in [*near, emc / 3, emc * 3]:
        n = min(max(1, round(wanted)), limit)
        chance = (1 - lapse) / (1 + math.exp((math.log(n) - math.log(emc)) / 0.12))
        outcomes.append((n, 0 if rng.random() < chance else max(1, n // 10)))
    return status(point, outcomes, n_limit=limit, params=params)


def sweep_of(
    points: list[Point], truth: Callable[[Point], float], rng: np.random.Generator, *,
    scatter: float, limit: int = LIMIT, lapse: float = 0.02,
) -> list[PointStatus]:  # fmt: skip
    """Return a measured sweep; its EMCs scatter about their truth, so ratios do twice as widely."""
    return [
        measured(
            point, truth(point) * math.exp(rng.normal(0, scatter / math.sqrt(2))), rng,
            limit=limit, lapse=lapse, params=100 * point.swept["model.width"],
        )
        for point in points
    ]  # fmt: skip
