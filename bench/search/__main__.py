"""Replay every policy on recorded training runs and known fit curves (tables of docs/search.md).

Usage: python -m bench.search [--replays N] [--markdown FILE] [--plot FILE]
Prints the results as JSON. The default of 60 replays per world, and a third as many of each
variant, takes 15 minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from bench.search.plot import plot
from bench.search.replay import Play, play, walk
from bench.search.report import markdown
from bench.search.tables import (
    MODELS,
    Table,
    World,
    logistic,
    middle,
    perceptron,
)
from flexhpc.config.sections.search import Bayes
from flexhpc.search.evidence import Floats

TOLERANCE = 0.1
"""Relative half-width of an interval at which the cost of a search is measured."""
BISECTIONS = 400
GROWTH = (1.005, 1.02, 1.25)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A variant of the Bayesian search.

    Attributes:
        settings: settings of the policy.
        play: options of :func:`bench.search.replay.play`.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    play: dict[str, bool] = field(default_factory=dict)


VARIANTS = {
    "bayes": Variant(),
    "verdicts only": Variant(play={"counts": False}),
    "four at once": Variant(settings={"at_once": 4}),
}


def worlds() -> dict[str, World]:
    """Return every world by name."""
    by_name: dict[str, World] = {name: Table(name) for name in MODELS}
    for lapse in (0.0, 0.02, 0.05):
        curves = {f"perceptron, d = {d}": perceptron(d, lapse) for d in (20, 50, 200)}
        curves |= {f"logistic, width {s}": logistic(1000, s, lapse) for s in (0.02, 0.2)}
        by_name |= {f"{name}, lapses {lapse:.0%}": world for name, world in curves.items()}
    return by_name


def search_once(name: str, variant: str, seed: int) -> Play:
    """Search to within 5 % or a cost of 60; earlier rounds give the costs of wider tolerances."""
    world, options = worlds()[name], VARIANTS[variant]
    search = Bayes(policy="bayes", tolerance=0.05, max_cost=60.0, **options.settings)
    return play(world, search, np.random.default_rng(seed), **options.play)


def bisection(name: str, step: float | None, seed: int) -> tuple[float, float]:
    return walk(worlds()[name], np.random.default_rng(seed), step)


def at_cost(plays: list[Play], cost: float) -> dict[str, float]:
    """Summarize searches after the round whose total cost is nearest to ``cost``.

    Their mean cost is then that of the bisections with which they are compared.
    """
    rounds = [int(np.argmin(abs(p.cost - cost))) for p in plays]
    return _known(plays, rounds)


def at_tolerance(plays: list[Play]) -> dict[str, float]:
    """Summarize searches after the first round within ``TOLERANCE``, or else the last round."""
    narrow = [np.nonzero(p.high - p.low <= 2 * np.log1p(TOLERANCE))[0] for p in plays]
    rounds = [int(n[0]) if len(n) else len(p.cost) - 1 for n, p in zip(narrow, plays, strict=True)]
    return _known(plays, rounds) | {"reached": float(np.mean([len(n) > 0 for n in narrow]))}


def _known(plays: list[Play], rounds: list[int]) -> dict[str, float]:
    error, low, high, cost, passed = (
        np.array([getattr(p, key)[i] for p, i in zip(plays, rounds, strict=True)])
        for key in ("error", "low", "high", "cost", "time")
    )
    return {
        "cost": float(cost.mean()),
        "time": float(passed.mean()),
        "rounds": float(np.mean(rounds) + 1),
        "bias": float(error.mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "coverage": float(np.mean((low <= 0) & (high >= 0))),
    }


class Bisections:
    """RMSE and cost of the median of k bisections; RMSE ~ 1 / sqrt(k) is assumed beyond k = 9.

    Args:
        searches: error (log) and cost of each bisection, shape (searches, 2).
    """

    def __init__(self, searches: Floats) -> None:
        errors, rng = searches[:, 0], np.random.default_rng(0)
        self.price = float(searches[:, 1].mean())
        self._k = np.array([1, 2, 3, 5, 9, 9e6])
        whole = self._k[:-1].astype(int)
        drawn = [np.median(errors[rng.integers(0, len(errors), (4000, k))], axis=1) for k in whole]
        rmse = [float(np.sqrt((d**2).mean())) for d in drawn]
        self._rmse = np.array([*rmse, rmse[-1] / 1e3])

    def rmse(self, k: float) -> float:
        """Return the RMSE of the median of k bisections."""
        return float(np.exp(np.interp(np.log(k), np.log(self._k), np.log(self._rmse))))

    def cost(self, rmse: float) -> float:
        """Return the cost of the bisections whose median has this RMSE."""
        k = np.exp(np.interp(-np.log(rmse), -np.log(self._rmse), np.log(self._k)))
        return float(k * self.price)


def measure(name: str, replays: int, pool: ProcessPoolExecutor) -> dict[str, Any]:
    """Return all results of one world."""
    plain = Bisections(np.array(list(pool.map(partial(bisection, name, None), range(BISECTIONS)))))
    price = plain.price
    figures: dict[str, Any] = {
        "n50": middle(worlds()[name]),
        "bisection": {str(k): {"cost": k * price, "rmse": plain.rmse(k)} for k in (1, 2, 5)},
        "growth": {},
        "variants": {},
    }
    for step in GROWTH:
        grown = np.array(list(pool.map(partial(bisection, name, step), range(100))))
        figures["growth"][str(step)] = {
            "cost": float(grown[:, 1].mean()),
            "bias": float(grown[:, 0].mean()),
            "rmse": float(np.sqrt((grown[:, 0] ** 2).mean())),
        }
    for variant in VARIANTS:
        if variant != "bayes" and name not in MODELS:  # probes of curves have no error counts
            continue
        count = replays if variant == "bayes" else -(-replays // 3)
        plays = list(pool.map(partial(search_once, name, variant), range(count)))
        end = at_tolerance(plays)
        budgets = {}
        for k in (1, 2, 4):
            row = at_cost(plays, k * price)
            budgets[str(k)] = row | {"ratio": row["rmse"] / plain.rmse(k)}
        figures["variants"][variant] = {
            "budgets": budgets,
            "tolerance": end | {"of_bisections": end["cost"] / plain.cost(end["rmse"])},
            "ms": 1000 * sum(p.seconds for p in plays) / sum(len(p.cost) for p in plays),
            "curve": _curve(plays, price),
        }
    return figures


def _curve(plays: list[Play], price: float) -> list[tuple[float, float]]:
    """Return pairs of cost (in units of a bisection) and RMSE for the plot."""
    ladder = np.geomspace(0.7, 8, 14)
    rows = [at_cost(plays, float(k) * price) for k in ladder]
    return [(row["cost"] / price, row["rmse"]) for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--replays", type=int, default=60)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    results = {}
    with ProcessPoolExecutor(2) as pool:
        for name in worlds():
            results[name] = measure(name, arguments.replays, pool)
            print(f"{name}: done", file=sys.stderr, flush=True)
    print(
        json.dumps({"bench": "search", "replays": arguments.replays, "worlds": results}, indent=1)
    )
    if arguments.markdown:
        arguments.markdown.write_text(markdown(results))
    if arguments.plot:
        plot(results, arguments.plot)


if __name__ == "__main__":
    main()
