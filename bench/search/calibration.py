"""Measure the coverage of intervals for fit curves from the prior and for planted lapses.

Usage: python -m bench.search.calibration [--draws 1200] [--markdown FILE]
Prints JSON: coverage over the prior and by true width of the curve, reasons why searches ended,
time per decision without cached state, and how often the interval of the lapse rate contains a rate
that was planted in recorded training runs. Takes ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from scipy.special import logit

from bench.search.replay import play
from bench.search.tables import Table, Training
from flexhpc.config.sections.search import Bayes
from flexhpc.search.evidence import FEW, LAW_PRIOR, ONSETS, RELATIVE_ONSET, SPREADS, UNEXPLAINED
from flexhpc.search.fit_curve import LAPSE_PRIOR, LAPSES, WIDTH_MIDDLE, WIDTH_SPREAD, WIDTHS

BY_WIDTH = (0.0, 0.06, 0.16, 0.3, 1.0)
PLANTED_IN = ("perceptron_adam", "vit_adamw", "cnn_adam", "mlp_tanh")
"""Recorded models that hardly lapse by themselves."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A world drawn from the prior of the search and simulated by its likelihood.

    Attributes:
        threshold: threshold in log n.
        width: width in log n.
        lapse: lapse rate.
        law: index of the law of missed samples (:mod:`flexhpc.search.evidence`).
    """

    threshold: float
    width: float
    lapse: float
    law: int
    n_limit: int = 60_000

    @classmethod
    def of(cls, rng: np.random.Generator) -> Drawn:
        """Draw a world whose threshold is far from 1 and from ``n_limit``."""
        width = 0.0
        while not WIDTHS[0] <= width <= WIDTHS[-1]:
            width = math.exp(rng.normal(math.log(WIDTH_MIDDLE), WIDTH_SPREAD))
        return cls(
            threshold=float(rng.uniform(math.log(40), math.log(15_000))),
            width=width,
            lapse=float(rng.choice(LAPSES, p=np.exp(LAPSE_PRIOR) / np.exp(LAPSE_PRIOR).sum())),
            law=int(rng.choice(len(LAW_PRIOR), p=LAW_PRIOR)),
        )

    def chance(self, n: float) -> float:
        """See :class:`bench.search.tables.World`."""
        z = (self.threshold - math.log(n)) / self.width
        return (1 - self.lapse) / (1 + math.exp(-z) if z > -700 else math.inf)

    @property
    def middle(self) -> float:
        """The n at which half of the training runs fit; 0 if there is none."""
        inner = 0.5 / (1 - self.lapse)
        return math.exp(self.threshold - self.width * logit(inner)) if inner < 1 else 0.0

    def draw(self, n: int, rng: np.random.Generator) -> Training:
        """See :class:`bench.search.tables.World`."""
        hardness = (math.log(n) - self.threshold) / self.width + rng.logistic()
        missed = 0
        if rng.random() < self.lapse:
            missed = _few(n, rng) if rng.random() < FEW else _any(n, rng)
        elif hardness >= 0:
            onset = ONSETS[self.law] + RELATIVE_ONSET[self.law] * math.log(n)
            explained = math.exp(min(onset + SPREADS[self.law] * hardness, 50.0))
            missed = _any(n, rng) if rng.random() < UNEXPLAINED else max(1, round(explained))
        return _training(n, min(missed, n))


def _few(n: int, rng: np.random.Generator) -> int:
    """Draw m with probability 1 / (m (m + 1))."""
    return min(n, int(1 / (1 - rng.random())))


def _any(n: int, rng: np.random.Generator) -> int:
    """Draw from a log-uniform distribution over 1 to n."""
    return min(n, max(1, round(math.exp(rng.uniform(math.log(0.5), math.log(n + 0.5))))))


def _training(n: int, missed: int) -> Training:
    share = 1.0 if missed else 0.35
    return Training(
        verdict="not_fit" if missed else "fit",
        n_errors=missed,
        share=share,
        cost=max(1, round(1000 * n * share)),
        full_cost=1000 * n,
    )


@dataclass(frozen=True, kw_only=True)
class Planted:
    """Recorded training runs with planted lapses.

    Attributes:
        table: recorded training runs.
        rate: probability of a planted lapse.
        few: whether a lapse misses few samples.
    """

    table: Table
    rate: float
    few: bool
    n_limit: int = Table.n_limit

    def chance(self, n: float) -> float:
        """See :class:`bench.search.tables.World`."""
        return (1 - self.rate) * self.table.chance(n)

    def draw(self, n: int, rng: np.random.Generator) -> Training:
        """See :class:`bench.search.tables.World`."""
        training = self.table.draw(n, rng)
        if rng.random() >= self.rate:
            return training
        missed = _few(n, rng) if self.few else _any(n, rng)
        full = training.full_cost
        return replace(training, verdict="not_fit", n_errors=missed, share=1.0, cost=full)


def search_once(seed: int) -> dict[str, Any]:
    """Run one search with default settings on a world drawn from the prior."""
    rng = np.random.default_rng(seed)
    world = Drawn.of(rng)
    while world.middle < 4:
        world = Drawn.of(rng)
    result = play(world, Bayes(policy="bayes"), rng)
    return {
        "width": world.width,
        "held": bool(result.low[-1] <= 0 <= result.high[-1]),
        "error": float(result.error[-1]),
        "ended_by": result.estimate.ended_by,
        "probes": len(result.cost),
        "cost": float(result.cost[-1]),
        "seconds": result.seconds,
    }


def planted(name: str, rate: float, few: bool, seed: int) -> bool:
    """Return whether the interval of the lapse rate contains the planted rate."""
    world = Planted(table=Table(name), rate=rate, few=few)
    search = Bayes(policy="bayes")
    estimate = play(world, search, np.random.default_rng(seed)).estimate
    assert estimate.lapse is not None
    low, _, high = estimate.lapse
    return low <= rate <= high


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Summarize searches: coverage with its standard error, bias, RMSE, cost, reasons to end."""
    held = np.array([row["held"] for row in rows], dtype=float)
    errors = np.array([row["error"] for row in rows])
    ended = [row["ended_by"] for row in rows]
    return {
        "searches": len(rows),
        "coverage": float(held.mean()),
        "deviation": float(held.std() / math.sqrt(len(held))),
        "bias": float(np.median(errors)),
        "rmse": float(np.sqrt((errors**2).mean())),
        "probes": float(np.mean([row["probes"] for row in rows])),
        "cost": float(np.mean([row["cost"] for row in rows])),
        "ended_by": {
            str(reason): ended.count(reason) / len(ended) for reason in sorted(set(ended))
        },
        "ms": 1000 * sum(r["seconds"] for r in rows) / sum(r["probes"] for r in rows),
    }


def markdown(results: dict[str, Any]) -> str:
    """Return the tables of docs/search.md."""
    lines = [
        "| true width of the curve | searches | coverage | RMSE | probes | at a cap |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in [("all", results["all"]), *results["by_width"].items()]:
        cap = sum(v for k, v in row["ended_by"].items() if k.startswith("max"))
        lines.append(
            f"| {name} | {row['searches']} | {row['coverage']:.3f} +- {row['deviation']:.3f} | "
            f"{row['rmse']:.2f} | {row['probes']:.0f} | {cap:.0%} |"
        )
    lines += [
        "",
        "| lapses added to | rate | lapses that miss few samples | lapses that miss any number |",
        "|---|---|---|---|",
    ]
    for name, rates in results["planted"].items():
        for rate, kinds in rates.items():
            lines.append(f"| {name} | {rate} | {kinds['few']:.2f} | {kinds['any']:.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--draws", type=int, default=1200)
    parser.add_argument("--replays", type=int, default=40)
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    with ProcessPoolExecutor(2) as pool:
        rows = list(pool.map(search_once, range(arguments.draws), chunksize=8))
        lapses: dict[str, Any] = {}
        for name in PLANTED_IN:
            for rate in (0.1, 0.2):
                kinds = {}
                for kind, few in (("few", True), ("any", False)):
                    search = partial(planted, name, rate, few)
                    held = list(pool.map(search, range(arguments.replays)))
                    kinds[kind] = float(np.mean(held))
                lapses.setdefault(name, {})[str(rate)] = kinds
    by_width = {}
    for low, high in itertools.pairwise(BY_WIDTH):
        within = [row for row in rows if low <= row["width"] < high]
        if within:
            by_width[f"{low:g} to {high:g}"] = summary(within)
    results = {"all": summary(rows), "by_width": by_width, "planted": lapses}
    print(json.dumps({"bench": "calibration", **results}, indent=1))
    if arguments.markdown:
        arguments.markdown.write_text(markdown(results))


if __name__ == "__main__":
    main()
