"""How often a bisection's interval holds the true n50, on simulated fit curves, as JSON.

The table of docs/search.md. Usage: python bench/interval_coverage.py [runs per cell]
"""

from __future__ import annotations

import json
import math
import sys

import numpy as np

from flexhpc.search import Estimate, ProbeResult, advance
from flexhpc.spec.sections import Bisection

MIDDLE = 1000.0
N_LIMIT = 60_000


def simulate(search: Bisection, width: float, lapse: float, rng: np.random.Generator) -> Estimate:
    """Run one bisection on a logistic fit curve."""
    history: list[ProbeResult] = []
    while not isinstance(step := advance(search, N_LIMIT, history), Estimate):
        for n, repeat in step.probes:
            chance = (1 - lapse) / (1 + math.exp((math.log(n / MIDDLE)) / width))
            verdict = "fit" if rng.random() < chance else "not_fit"
            result = ProbeResult(n=n, repeat=repeat, verdict=verdict, n_errors=0, cost=n)
            history.append(result)
    return step


def cell(seeds: int, width: float, lapse: float, runs: int) -> dict[str, float]:
    """Return coverage, bias and RMSE of log EMC over many bisections."""
    search = Bisection(policy="bisection", start=64, tolerance=0.05, seeds_per_n=seeds)
    rng = np.random.default_rng((seeds, round(1000 * width), round(1000 * lapse)))
    half = 0.5 / (1 - lapse)
    truth = MIDDLE * math.exp(-width * math.log(half / (1 - half)))
    found = [simulate(search, width, lapse, rng) for _ in range(runs)]
    covered = [e.emc_lo <= truth <= (e.emc_hi or math.inf) for e in found]
    errors = np.array([math.log(max(e.emc, 1) / truth) for e in found])
    return {
        "seeds_per_n": seeds,
        "width": width,
        "lapse": lapse,
        "coverage": float(np.mean(covered)),
        "bias": float(errors.mean()),
        "rmse": float(np.sqrt((errors**2).mean())),
    }


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    cells = [
        cell(seeds, width, lapse, runs)
        for width in (0.02, 0.05, 0.1, 0.2, 0.3)
        for lapse in (0.0, 0.02, 0.05)
        for seeds in (1, 3)
    ]
    print(json.dumps({"bench": "interval_coverage", "runs": runs, "cells": cells}, indent=1))


if __name__ == "__main__":
    main()
