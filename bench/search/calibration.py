"""Measure the coverage of intervals, for fit curves drawn from the prior and for added lapses.

Usage: python -m bench.search.calibration [--draws 1200] [--replays 40]
Prints the tables of docs/search.md: the coverage, in total and by true width of the fit curve, and
how often the interval of the lapse rate contains the rate of lapses that were added to recorded
training runs. Also prints the time per decision without cached state. Takes ten minutes on two
cores.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from scipy.special import logit

from bench.common import markdown_head, markdown_row
from bench.search.replay import replay_search
from bench.search.worlds import RecordedWorld, TrainingRun
from flexhpc.config.sections.search import Bayes
from flexhpc.search.fit_curve import LAPSE_PRIOR, LAPSES, WIDTH_MIDDLE, WIDTH_SPREAD, WIDTHS

BY_WIDTH = (0.0, 0.06, 0.16, 0.3, 0.5, 1.0)
LAPSING_MODELS = ("perceptron_adam", "vit_adamw", "cnn_adam", "mlp_tanh")
"""Recorded models that hardly lapse; lapses are added to their training runs."""


@dataclass(frozen=True, kw_only=True)
class PriorWorld:
    """A world that is drawn from the prior of the search and follows its likelihood.

    Attributes:
        threshold: threshold of the fit curve (log n).
        width: width of the fit curve (log n).
        lapse: lapse rate.
    """

    threshold: float
    width: float
    lapse: float
    n_limit: int = 60_000

    @classmethod
    def of(cls, rng: np.random.Generator) -> PriorWorld:
        """Draw a world whose threshold is far from 1 and from ``n_limit``."""
        width = 0.0
        while not WIDTHS[0] <= width <= WIDTHS[-1]:
            width = math.exp(rng.normal(math.log(WIDTH_MIDDLE), WIDTH_SPREAD))
        return cls(
            threshold=float(rng.uniform(math.log(40), math.log(15_000))),
            width=width,
            lapse=float(rng.choice(LAPSES, p=np.exp(LAPSE_PRIOR) / np.exp(LAPSE_PRIOR).sum())),
        )

    def fit_probability(self, n: float) -> float:
        """See :class:`bench.search.worlds.World`."""
        z = (self.threshold - math.log(n)) / self.width
        return (1 - self.lapse) / (1 + math.exp(-z) if z > -700 else math.inf)

    @property
    def emc(self) -> float:
        """The n at which half of the training runs fit; 0 if there is none."""
        without_lapses = 0.5 / (1 - self.lapse)
        if without_lapses >= 1:
            return 0.0
        return math.exp(self.threshold - self.width * logit(without_lapses))

    def draw(self, n: int, rng: np.random.Generator) -> TrainingRun:
        """See :class:`bench.search.worlds.World`."""
        fit = bool(rng.random() < self.fit_probability(n))
        share = 0.35 if fit else 1.0
        return TrainingRun(
            verdict="fit" if fit else "not_fit",
            share=share,
            cost=max(1, round(1000 * n * share)),
            full_cost=1000 * n,
        )


@dataclass(frozen=True, kw_only=True)
class LapsingWorld:
    """Recorded training runs with added lapses.

    Attributes:
        recorded: recorded training runs.
        rate: probability of an added lapse.
    """

    recorded: RecordedWorld
    rate: float
    n_limit: int = RecordedWorld.n_limit

    def fit_probability(self, n: float) -> float:
        """See :class:`bench.search.worlds.World`."""
        return (1 - self.rate) * self.recorded.fit_probability(n)

    def draw(self, n: int, rng: np.random.Generator) -> TrainingRun:
        """See :class:`bench.search.worlds.World`."""
        run = self.recorded.draw(n, rng)
        if rng.random() >= self.rate:
            return run
        return replace(run, verdict="not_fit", share=1.0, cost=run.full_cost)


def search_once(seed: int) -> dict[str, Any]:
    """Run one search with default settings on a world drawn from the prior."""
    rng = np.random.default_rng(seed)
    world = PriorWorld.of(rng)
    while world.emc < 4:
        world = PriorWorld.of(rng)
    replay = replay_search(world, Bayes(policy="bayes"), rng)
    return {
        "width": world.width,
        "covered": bool(replay.low[-1] <= 0 <= replay.high[-1]),
        "error": float(replay.error[-1]),
        "ended_by": replay.estimate.ended_by,
        "probes": len(replay.cost),
        "seconds": replay.seconds,
    }


def covers_lapse_rate(name: str, rate: float, seed: int) -> bool:
    """Return whether the interval of the lapse rate contains the rate of the added lapses."""
    world = LapsingWorld(recorded=RecordedWorld(name), rate=rate)
    rng = np.random.default_rng(seed)
    estimate = replay_search(world, Bayes(policy="bayes"), rng).estimate
    assert estimate.lapse is not None
    low, _, high = estimate.lapse
    return low <= rate <= high


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Summarize searches; "capped" is the fraction that a maximum of the policy ended."""
    covered = np.array([row["covered"] for row in rows], dtype=float)
    errors = np.array([row["error"] for row in rows])
    return {
        "coverage": float(covered.mean()),
        "standard_error": float(covered.std() / math.sqrt(len(rows))),
        "rmse": float(np.sqrt((errors**2).mean())),
        "probes": float(np.mean([row["probes"] for row in rows])),
        "capped": float(np.mean([str(row["ended_by"]).startswith("max") for row in rows])),
        "ms": 1000 * sum(r["seconds"] for r in rows) / sum(r["probes"] for r in rows),
    }


def coverage_row(name: str, searches: list[dict[str, Any]]) -> str:
    row = summary(searches)
    coverage = f"{row['coverage']:.3f} +- {row['standard_error']:.3f}"
    cells = [f"{row['rmse']:.2f}", f"{row['probes']:.0f}", f"{row['capped']:.0%}"]
    return markdown_row([name, str(len(searches)), coverage, *cells])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=1200)
    parser.add_argument("--replays", type=int, default=40)
    arguments = parser.parse_args()
    with ProcessPoolExecutor(2) as pool:
        searches = list(pool.map(search_once, range(arguments.draws), chunksize=8))
        columns = [
            "true width of the curve", "searches", "coverage", "RMSE", "probes",
            "ended by `max_cost`",
        ]  # fmt: skip
        print(markdown_head(columns))
        print(coverage_row("all", searches))
        for low, high in itertools.pairwise(BY_WIDTH):
            if of_width := [s for s in searches if low <= s["width"] < high]:
                print(coverage_row(f"{low:g} to {high:g}", of_width))
        print(f"\n{summary(searches)['ms']:.0f} ms of CPU time per decision\n", flush=True)
        print(markdown_head(["lapses added to", "lapse rate", "coverage"]))
        for name, rate in itertools.product(LAPSING_MODELS, (0.1, 0.2)):
            search = partial(covers_lapse_rate, name, rate)
            covered = list(pool.map(search, range(arguments.replays)))
            print(markdown_row([name, str(rate), f"{np.mean(covered):.2f}"]), flush=True)


if __name__ == "__main__":
    main()
