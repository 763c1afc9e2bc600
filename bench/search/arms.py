"""Replay searches over learning rates (arms) on recorded training runs (docs/search.md).

Usage: python -m bench.search.arms [--replays 60]
Prints one row per model: how often the EMC of the chosen rate is near the EMC of the best rate, and
the cost relative to a search at the best rate. Takes eight minutes on two cores.
"""

from __future__ import annotations

import argparse
import math
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from bench.common import markdown_head, markdown_row
from bench.search.record import MODELS as SPECS
from bench.search.replay import draw_start, unit_cost
from bench.search.worlds import RATES, RecordedWorld, true_emc
from flexhpc.config import load_points
from flexhpc.config.sections.search import Bayes
from flexhpc.search import ProbeResult, next_probes

NEAR = 0.05
"""The chosen arm is near the best arm if its EMC is smaller by at most this fraction."""


def search_once(name: str, arms: tuple[int, ...], seed: int) -> dict[str, float]:
    """Replay one search over arms of a model, with default settings.

    Returns:
        cost: in full training runs at the EMC of the best arm; probes: number; chosen: chosen arm;
        error: log(estimate / EMC of the best arm); shortfall: 1 - EMC of the chosen arm / EMC of
        the best arm; covered: whether the interval contains the EMC of the chosen arm; probability:
        reported probability that the chosen arm is the best.
    """
    (point,) = load_points(SPECS / f"{name}.yaml")[1]
    worlds = {arm: RecordedWorld(name, arm) for arm in arms}
    emcs = {arm: true_emc(world) for arm, world in worlds.items()}
    best = max(emcs, key=lambda arm: emcs[arm])
    rng = np.random.default_rng(seed)
    search = Bayes(policy="bayes", start=draw_start(emcs[best], rng))
    coordinates = [point.arm_coordinates[arm] for arm in arms]
    if len(arms) == 1:
        coordinates = [()]
    history: list[ProbeResult] = []
    n_limit = RecordedWorld.n_limit
    while isinstance(step := next_probes(search, n_limit, history, coordinates), list):
        history += [worlds[arms[probe.arm]].draw(probe.n, rng).result(probe) for probe in step]
    unit = unit_cost(worlds[best], emcs[best])
    chosen = arms[step.arm]
    high = math.inf if step.emc_hi is None else step.emc_hi
    return {
        "cost": step.cost / unit,
        "probes": step.probes,
        "chosen": chosen,
        "error": math.log(max(step.emc, 0.5) / emcs[best]),
        "shortfall": 1 - emcs[chosen] / emcs[best],
        "covered": float(step.emc_lo <= emcs[chosen] <= high),
        "probability": 1.0 if step.best_chance is None else step.best_chance,
    }


def duel(name: str, budget: float, seed: int) -> bool:
    """Spend a budget on only the two best arms; return whether the better arm fits more often.

    All training runs are at one n between the two EMCs, so no search is expected to do better.

    Args:
        budget: in full training runs at the EMC of the best arm.
    """
    rng = np.random.default_rng(seed)
    worlds = [RecordedWorld(name, arm) for arm in RecordedWorld.arms(name)]
    pair = sorted(worlds, key=true_emc)[-2:]
    n = round(math.sqrt(true_emc(pair[0]) * true_emc(pair[1])))
    remaining = budget * unit_cost(pair[1], true_emc(pair[1]))
    fits, wins_ties = [0, 0], bool(rng.random() < 0.5)
    while remaining > 0:
        for i, world in enumerate(pair):
            run = world.draw(n, rng)
            fits[i] += run.verdict == "fit"
            remaining -= run.cost
    return fits[1] > fits[0] or (fits[1] == fits[0] and wins_ties)


def row(name: str, replays: int, pool: ProcessPoolExecutor) -> str:
    arms = RecordedWorld.arms(name)
    emcs = [true_emc(RecordedWorld(name, arm)) for arm in arms]
    best = int(np.argmax(emcs))
    searches = list(pool.map(partial(search_once, name, arms), range(replays)))
    at_best = list(pool.map(partial(search_once, name, (arms[best],)), range(replays)))
    means = {key: float(np.mean([search[key] for search in searches])) for key in searches[0]}
    near = np.mean([search["shortfall"] <= NEAR for search in searches])
    rmse = np.sqrt(np.mean([search["error"] ** 2 for search in searches]))
    chose_best = np.mean([search["chosen"] == best for search in searches])
    cost_at_best = float(np.mean([search["cost"] for search in at_best]))
    duels = list(pool.map(partial(duel, name, 2 * cost_at_best), range(10 * replays), chunksize=20))
    cells = [
        name, ", ".join(str(round(emc)) for emc in emcs), f"{near:.0%}",
        f"{means['cost']:.1f} ({cost_at_best:.1f}: {means['cost'] / cost_at_best:.1f}x)",
        f"{means['probes']:.0f}", f"{means['error']:+.1%}, {rmse:.2f}", f"{means['covered']:.2f}",
        f"{chose_best:.2f}, {means['probability']:.2f}", f"{np.mean(duels):.2f}",
    ]  # fmt: skip
    return markdown_row(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replays", type=int, default=60)
    arguments = parser.parse_args()
    columns = [
        "model", "EMC at each learning rate", "within 5 % of the best",
        "cost (at the best learning rate)", "probes", "bias, RMSE", "coverage",
        "best learning rate, its probability", "a duel at twice the cost",
    ]  # fmt: skip
    print(markdown_head(columns))
    with ProcessPoolExecutor(2) as pool:
        for name in RATES:
            print(row(name, arguments.replays, pool), flush=True)


if __name__ == "__main__":
    main()
