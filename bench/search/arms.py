"""Replay searches over learning rates (arms) on recorded training runs.

Usage: python -m bench.search.arms [--replays 60] [--markdown FILE]
Prints JSON: how far the EMC of the chosen rate is below that of the best rate, and the cost
relative to a search at the best rate. Takes eight minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from bench.search.record import MODELS as SPECS
from bench.search.replay import start_of, unit_of
from bench.search.tables import RATES, Table, middle
from flexhpc.config import load_points
from flexhpc.config.sections.search import Bayes
from flexhpc.search import Estimate, ProbeResult, advance

NEAR = 0.05
"""Relative distance to the best EMC within which the EMC of the chosen arm is near the best."""


def search_once(name: str, arms: tuple[int, ...], seed: int) -> dict[str, float]:
    """Run one search over arms of a model, with default settings.

    Returns:
        cost: in full training runs at the EMC of the best arm; probes; chosen: the chosen arm;
        error: log(estimate / EMC of the best arm); short: 1 - EMC of the chosen arm / EMC of the
        best arm; held: whether the interval contains the EMC of the chosen arm; chance: reported
        probability that the chosen arm is the best.
    """
    (point,) = load_points(SPECS / f"{name}.yaml")[1]
    tables = {arm: Table(name, arm) for arm in arms}
    truth = {arm: middle(table) for arm, table in tables.items()}
    best = max(truth, key=lambda arm: truth[arm])
    rng = np.random.default_rng(seed)
    search = Bayes(policy="bayes", start=start_of(truth[best], rng))
    coordinates = [point.coordinates[arm] for arm in arms]
    if len(arms) == 1:
        coordinates = [()]
    history: list[ProbeResult] = []
    while True:
        step = advance(search, Table.n_limit, history, coordinates)
        if isinstance(step, Estimate):
            break
        history += [tables[arms[probe.arm]].draw(probe.n, rng).result(probe) for probe in step]
    unit = unit_of(tables[best], truth[best])
    chosen = arms[step.arm]
    high = math.inf if step.emc_hi is None else step.emc_hi
    return {
        "cost": step.cost / unit,
        "probes": step.probes,
        "chosen": chosen,
        "error": math.log(max(step.emc, 0.5) / truth[best]),
        "short": 1 - truth[chosen] / truth[best],
        "held": float(step.emc_lo <= truth[chosen] <= high),
        "chance": 1.0 if step.best_chance is None else step.best_chance,
    }


def duel(name: str, budget: float, seed: int) -> bool:
    """Spend a budget on only the two best arms; return whether the better arm fits more often.

    All training runs are at one n between the two EMCs, so no search is expected to do better.

    Args:
        budget: in full training runs at the EMC of the best arm.
    """
    rng = np.random.default_rng(seed)
    two = sorted((Table(name, arm) for arm in Table.arms(name)), key=middle)[-2:]
    n = round(math.sqrt(middle(two[0]) * middle(two[1])))
    left = budget * unit_of(two[1], middle(two[1]))
    fits, chance = [0, 0], float(rng.random() < 0.5)
    while left > 0:
        for i, table in enumerate(two):
            training = table.draw(n, rng)
            fits[i] += training.verdict == "fit"
            left -= training.cost
    return bool(fits[1] - fits[0] + chance > 0.5)


def measure(name: str, replays: int, pool: ProcessPoolExecutor) -> dict[str, Any]:
    """Return the results of one model."""
    arms = Table.arms(name)
    truth = [middle(Table(name, arm)) for arm in arms]
    best = int(np.argmax(truth))
    tuned = list(pool.map(partial(search_once, name, arms), range(replays)))
    untuned = list(pool.map(partial(search_once, name, (arms[best],)), range(replays)))
    twice = 2 * float(np.mean([row["cost"] for row in untuned]))
    duels = list(pool.map(partial(duel, name, twice), range(10 * replays), chunksize=20))
    return {
        "duel": float(np.mean(duels)),
        "emc": [round(value) for value in truth],
        "near": float(np.mean([row["short"] <= NEAR for row in tuned])),
        "short": float(np.mean([row["short"] for row in tuned])),
        "cost": float(np.mean([row["cost"] for row in tuned])),
        "cost_untuned": float(np.mean([row["cost"] for row in untuned])),
        "probes": float(np.mean([row["probes"] for row in tuned])),
        "held": float(np.mean([row["held"] for row in tuned])),
        "bias": float(np.mean([row["error"] for row in tuned])),
        "rmse": float(np.sqrt(np.mean([row["error"] ** 2 for row in tuned]))),
        "chance": float(np.mean([row["chance"] for row in tuned])),
        "right": float(np.mean([row["chosen"] == best for row in tuned])),
    }


def markdown(models: dict[str, Any]) -> str:
    """Return the table of docs/search.md."""
    lines = [
        "| model | EMC at each rate | within 5 % of the best | cost (at the best rate) | probes |"
        " bias, RMSE | coverage | best rate, its probability | a duel at twice the cost |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in models.items():
        ratio = row["cost"] / row["cost_untuned"]
        lines.append(
            f"| {name} | {', '.join(map(str, row['emc']))} | {row['near']:.0%} | "
            f"{row['cost']:.1f} ({row['cost_untuned']:.1f}: {ratio:.1f}x) | "
            f"{row['probes']:.0f} | {row['bias']:+.1%}, {row['rmse']:.2f} | {row['held']:.2f} | "
            f"{row['right']:.2f}, {row['chance']:.2f} | {row['duel']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--replays", type=int, default=60)
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    with ProcessPoolExecutor(2) as pool:
        models = {name: measure(name, arguments.replays, pool) for name in RATES}
    print(json.dumps({"bench": "arms", "replays": arguments.replays, "models": models}, indent=1))
    if arguments.markdown:
        arguments.markdown.write_text(markdown(models))


if __name__ == "__main__":
    main()
