"""Replay searches on recorded times to fit; evaluate EMCs at other budgets (docs/search.md).

Usage: python -m bench.search.timed [--searches 20] [MODEL ...]
Prints one row per model and budget. MODEL: by default all recorded models. Takes five minutes.
"""

from __future__ import annotations

import argparse
import math
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from bench.search.replay import clear_cache, start_of
from bench.search.timed.record import HERE
from bench.search.timed.world import TimedTable
from flexhpc.config.sections.search import Bayes
from flexhpc.search import EmcInterval, Estimate, ProbeResult, advance
from flexhpc.search.budget_curve import budget_curve

SEARCH = Bayes(policy="bayes", tolerance=0.2)
FACTORS = (1.0, 1 / 16, 1 / 4, 1 / 2, 2.0)
"""Multiples of the budget at which the EMC is evaluated."""
DOUBLINGS = (0, 2)
"""Log2 of the budgets of the searches, relative to those of the specs."""
TUNED_ON = ("mlp_relu", "cnn_norm", "muon", "mlp_tanh", "vit")
"""Models on which the prior of the growth laws was chosen."""


def search_once(model: str, doublings: int, seed: int) -> list[tuple[float, float]]:
    """Run one search.

    Returns:
        (1, cost in whole training runs); then for each of ``FACTORS`` (whether the interval
        contains the true EMC, log(EMC / true EMC)), or (nan, nan) if the true EMC is not recorded.
    """
    world, rng = TimedTable(model, doublings), np.random.default_rng([seed, doublings])
    start = start_of(world.emc(world.budget), rng)
    search = SEARCH.model_copy(update={"start": start})
    history: list[ProbeResult] = []
    clear_cache()
    while isinstance(step := advance(search, world.n_limit, history), list):
        history += [world.draw(probe.n, rng).result(probe) for probe in step]
    curve = budget_curve(history, world.n_limit)
    rows = [(1.0, sum(result.share or 1 for result in history))]
    for factor in FACTORS:
        found: Estimate | EmcInterval = step
        if factor != 1:
            assert curve is not None
            found = curve.emc(0.5, factor)
        truth = world.emc(factor * world.budget)
        if truth > world.rows[-1]:  # beyond the recorded n
            rows.append((math.nan, math.nan))
            continue
        high = math.inf if found.emc_hi is None else found.emc_hi
        rows.append((found.emc_lo <= truth <= high, math.log(max(found.emc, 0.5) / truth)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--searches", type=int, default=20)
    parser.add_argument("models", nargs="*")
    arguments = parser.parse_args()
    recorded = sorted(path.stem for path in HERE.glob("*.npz"))
    names = " | ".join(f"{factor:g} B" for factor in FACTORS)
    print(f"| model | updates | EMC | cost | {names} |\n|{'---|' * (4 + len(FACTORS))}")
    with ProcessPoolExecutor() as pool:
        for model in arguments.models or recorded:
            for doublings in DOUBLINGS:
                world = TimedTable(model, doublings)
                count = arguments.searches
                played = pool.map(search_once, [model] * count, [doublings] * count, range(count))
                cost, *cells = np.array(list(played)).transpose(1, 0, 2)
                texts = [
                    "-" if math.isnan(held) else f"{held:.2f}, {bias:+.0%}"
                    for held, bias in (c.mean(axis=0) for c in cells)
                ]
                kind = "tuned on" if model in TUNED_ON else "judged on"
                print(
                    f"| {model} ({kind}) | {world.budget:,.0f} | {world.emc(world.budget):.0f} "
                    f"| {cost[:, 1].mean():.1f} | {' | '.join(texts)} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
