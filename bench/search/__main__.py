"""Replay every policy on recorded training runs and known fit curves (tables of docs/search.md).

Usage: python -m bench.search [--replays 60] [--plot FILE]
Prints the tables. By default, the Bayesian search is replayed 60 times per world, and each variant
of it a third as often; this takes 15 minutes on two cores.
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from bench.search.plot import plot
from bench.search.replay import Replay, replay_search, replay_single_runs
from bench.search.report import markdown
from bench.search.worlds import MODELS, RecordedWorld, World, logistic, perceptron
from flexhpc.config.sections.search import Bayes
from flexhpc.search.history import Floats

TOLERANCE = 0.1
"""Relative half-width of an interval at which the cost of a search is measured."""
BISECTIONS = 400
GROWTH_FACTORS = (1.005, 1.02, 1.25)
VARIANTS = ("bayes", "four at once")
"""Variants of the Bayesian search."""


@cache
def worlds() -> dict[str, World]:
    by_name: dict[str, World] = {name: RecordedWorld(name) for name in MODELS}
    for lapse in (0.0, 0.02, 0.05):
        curves = {f"perceptron, d = {d}": perceptron(d, lapse) for d in (20, 50, 200)}
        curves |= {f"logistic, width {s}": logistic(1000, s, lapse) for s in (0.02, 0.2)}
        by_name |= {f"{name}, lapses {lapse:.0%}": world for name, world in curves.items()}
    return by_name


def search_once(name: str, variant: str, seed: int) -> Replay:
    """Replay a search to a tolerance of 5 % or a cost of 60 full training runs."""
    search = Bayes(policy="bayes", tolerance=0.05, max_cost=60.0)
    if variant == "four at once":
        search = search.model_copy(update={"at_once": 4})
    rng = np.random.default_rng(seed)
    return replay_search(worlds()[name], search, rng)


def single_runs_once(name: str, growth: float | None, seed: int) -> tuple[float, float]:
    return replay_single_runs(worlds()[name], np.random.default_rng(seed), growth)


def at_cost(replays: list[Replay], cost: float) -> dict[str, float]:
    """Summarize searches after the round whose total cost is nearest to ``cost``.

    Their mean cost is then close to the cost of the bisections with which they are compared.
    """
    rounds = [int(np.argmin(abs(r.cost - cost))) for r in replays]
    return _summary(replays, rounds)


def at_tolerance(replays: list[Replay]) -> dict[str, float]:
    """Summarize searches after the first round within ``TOLERANCE``, or else the last round."""
    rounds = []
    for replay in replays:
        (narrow,) = np.nonzero(replay.high - replay.low <= 2 * np.log1p(TOLERANCE))
        rounds.append(int(narrow[0]) if len(narrow) else len(replay.cost) - 1)
    return _summary(replays, rounds)


def _summary(replays: list[Replay], rounds: list[int]) -> dict[str, float]:
    error, low, high, cost, elapsed = (
        np.array([getattr(r, key)[i] for r, i in zip(replays, rounds, strict=True)])
        for key in ("error", "low", "high", "cost", "time")
    )
    return {
        "cost": float(cost.mean()),
        "time": float(elapsed.mean()),
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
        self.unit_cost = float(searches[:, 1].mean())
        counts = (1, 2, 3, 5, 9)
        rmse = []
        for k in counts:
            medians = np.median(errors[rng.integers(0, len(errors), (4000, k))], axis=1)
            rmse.append(float(np.sqrt((medians**2).mean())))
        self._k = np.array([*counts, 9e6])
        self._rmse = np.array([*rmse, rmse[-1] / 1e3])

    def rmse(self, k: float) -> float:
        """Return the RMSE of the median of k bisections."""
        return float(np.exp(np.interp(np.log(k), np.log(self._k), np.log(self._rmse))))

    def cost(self, rmse: float) -> float:
        """Return the cost of the bisections whose median has this RMSE."""
        k = np.exp(np.interp(-np.log(rmse), -np.log(self._rmse), np.log(self._k)))
        return float(k * self.unit_cost)


def measure(name: str, replay_count: int, pool: ProcessPoolExecutor) -> dict[str, Any]:
    searches = pool.map(partial(single_runs_once, name, None), range(BISECTIONS))
    bisections = Bisections(np.array(list(searches)))
    unit = bisections.unit_cost
    results: dict[str, Any] = {
        "bisection": {str(k): {"cost": k * unit, "rmse": bisections.rmse(k)} for k in (1, 2, 5)},
        "growth": {},
        "variants": {},
    }
    for growth in GROWTH_FACTORS:
        searches = pool.map(partial(single_runs_once, name, growth), range(100))
        errors, costs = np.array(list(searches)).T
        growth_results = {"cost": float(costs.mean()), "bias": float(errors.mean())}
        results["growth"][str(growth)] = growth_results
    for variant in VARIANTS:
        if variant != "bayes" and name not in MODELS:
            continue
        count = replay_count if variant == "bayes" else -(-replay_count // 3)
        replays = list(pool.map(partial(search_once, name, variant), range(count)))
        at_end = at_tolerance(replays)
        budgets = {}
        for k in (1, 2, 4):
            row = at_cost(replays, k * unit)
            budgets[str(k)] = row | {"ratio": row["rmse"] / bisections.rmse(k)}
        of_bisections = at_end["cost"] / bisections.cost(at_end["rmse"])
        results["variants"][variant] = {
            "budgets": budgets,
            "tolerance": at_end | {"of_bisections": of_bisections},
            "ms": 1000 * sum(r.seconds for r in replays) / sum(len(r.cost) for r in replays),
            "curve": _curve(replays, unit),
        }
    return results


def _curve(replays: list[Replay], unit: float) -> list[tuple[float, float]]:
    """Return pairs of cost (in units of a bisection) and RMSE for the plot."""
    rows = [at_cost(replays, float(k) * unit) for k in np.geomspace(0.7, 8, 14)]
    return [(row["cost"] / unit, row["rmse"]) for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replays", type=int, default=60)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    results = {}
    with ProcessPoolExecutor(2) as pool:
        for name in worlds():
            results[name] = measure(name, arguments.replays, pool)
            print(f"{name}: done", file=sys.stderr, flush=True)
    print(markdown(results), end="")
    if arguments.plot:
        plot(results, arguments.plot)


if __name__ == "__main__":
    main()
