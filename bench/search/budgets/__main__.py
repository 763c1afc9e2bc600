"""Replay searches on recorded times to fit; evaluate EMCs at other budgets (docs/search.md).

Usage: python -m bench.search.budgets [--searches 20] [--without-times] [MODEL ...]
Prints one row per model and budget. MODEL: by default all recorded models. Takes five minutes.
With --without-times, the searches do not use the times to fit; only the EMCs at the budget of the
search are then evaluated.
"""

from __future__ import annotations

import argparse
import math
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np

from bench.common import markdown_head, markdown_row
from bench.search.budgets.record import MODELS
from bench.search.budgets.worlds import TimedWorld
from bench.search.replay import clear_cache, draw_start
from flexhpc.config.sections.search import Bayes
from flexhpc.search import EmcInterval, Estimate, ProbeResult, next_probes
from flexhpc.search.budget_curve import budget_curve

SEARCH = Bayes(policy="bayes", tolerance=0.2)
FACTORS = (1.0, 1 / 16, 1 / 4, 1 / 2, 2.0)
"""Multiples of the budget at which the EMC is evaluated."""
DOUBLINGS = (0, 2)
"""log2(budget of a search / budget of its spec)."""
_MAX_LAST_PROBABILITY = 0.1
"""Budgets at which a larger fraction of the training runs on the most samples fit are omitted."""
TUNED_ON = ("mlp_relu", "cnn_norm", "muon", "mlp_tanh", "vit")
"""Models on which the prior of the growth laws was chosen."""


def search_once(
    model: str, doublings: int, without_times: bool, seed: int
) -> list[tuple[float, float]]:
    """Replay one search, and evaluate its EMC at other budgets.

    Returns:
        Pairs. First: (1, cost in whole training runs). Then, for each of ``FACTORS``: (whether the
        interval contains the true EMC, log(EMC / true EMC)), or (nan, nan) if the true EMC is
        larger than all recorded n, or the EMC is not known without times.
    """
    world, rng = TimedWorld(model, doublings), np.random.default_rng([seed, doublings])
    start = draw_start(world.emc(world.budget), rng)
    search = SEARCH.model_copy(update={"start": start})
    history: list[ProbeResult] = []
    clear_cache()
    while isinstance(step := next_probes(search, world.n_limit, history), list):
        history += [world.draw(probe.n, rng).result(probe) for probe in step]
        if without_times:
            history = [replace(result, time=None) for result in history]
    curve = budget_curve(history, world.n_limit)
    rows = [(1.0, sum(result.share or 1 for result in history))]
    for factor in FACTORS:
        emc = world.emc(factor * world.budget)
        if emc > world.sizes[-1] or (factor != 1 and without_times):
            rows.append((math.nan, math.nan))
            continue
        estimate: Estimate | EmcInterval = step
        if factor != 1:
            assert curve is not None
            estimate = curve.emc(0.5, factor)
        high = math.inf if estimate.emc_hi is None else estimate.emc_hi
        rows.append((estimate.emc_lo <= emc <= high, math.log(max(estimate.emc, 0.5) / emc)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--searches", type=int, default=20)
    parser.add_argument("--without-times", action="store_true")
    parser.add_argument("models", nargs="*")
    arguments = parser.parse_args()
    recorded = sorted(path.stem for path in MODELS.glob("*.npz"))
    factors = [f"{factor:g} B" for factor in FACTORS]
    print(markdown_head(["model", "updates", "EMC", "cost", *factors]))
    with ProcessPoolExecutor() as pool:
        for model in arguments.models or recorded:
            for doublings in DOUBLINGS:
                world = TimedWorld(model, doublings)
                if world.fit_probability(world.sizes[-1]) > _MAX_LAST_PROBABILITY:
                    continue  # the fit curve is unknown beyond the recorded n
                search = partial(search_once, model, doublings, arguments.without_times)
                rows = list(pool.map(search, range(arguments.searches)))
                (_, cost), *means = np.mean(rows, axis=0)
                kind = "tuned on" if model in TUNED_ON else "held out"
                cells = [f"{model} ({kind})", f"{world.budget:,.0f}"]
                cells += [f"{world.emc(world.budget):.0f}", f"{cost:.1f}"]
                for coverage, bias in means:
                    cells.append("-" if math.isnan(bias) else f"{coverage:.2f}, {bias:+.0%}")
                print(markdown_row(cells), flush=True)


if __name__ == "__main__":
    main()
