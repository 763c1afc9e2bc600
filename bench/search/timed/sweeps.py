"""Compare EMCs computed for other budgets with EMCs measured at them (docs/search.md).

Usage: python -m bench.search.timed.sweeps [--runs runs/budgets] [MODEL ...]
Runs or resumes one sweep for each model with a constant learning rate, with two seeds and with 1/16
to 2 times the budget of its spec; prints one row per model. Takes 20 minutes on two cores.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import yaml

import flexhpc
from bench.search.timed.record import HERE

FACTORS = (1 / 16, 1 / 4, 1 / 2, 2.0)
"""Multiples of the budget at which EMCs are compared."""
SEEDS = (3, 4)


def run_sweep(model: str, runs: Path) -> tuple[int, flexhpc.Run]:
    """Measure a model at all budgets; return the budget of its spec (updates), and the run."""
    spec = yaml.safe_load((HERE / f"{model}.yaml").read_text())
    budget = spec["fixed"]["training"].pop("steps")
    budgets = [int(budget * factor) for factor in sorted((*FACTORS, 1.0))]
    spec["fixed"]["search"] = {"policy": "bayes", "start": 32}
    spec["grid"] = {"training.steps": budgets, "seed": list(SEEDS)}
    return budget, flexhpc.sweep(spec, runs=runs)


def compare(budget: int, run: flexhpc.Run) -> dict[float, list[tuple[bool, float]]]:
    """Compare EMCs computed from the points with one budget with those measured at other budgets.

    Returns:
        For each of ``FACTORS`` and each seed: whether the interval contains the measured EMC, and
        log(EMC / measured EMC), or nan if the EMC is only bounded. Seeds whose measured EMC is only
        bounded are omitted.
    """
    measured = {(m.swept["training.steps"], m.swept["seed"]): m for m in run}
    compared: dict[float, list[tuple[bool, float]]] = {factor: [] for factor in FACTORS}
    for factor, cells in compared.items():
        for seed in SEEDS:
            other = int(budget * factor)
            estimate, truth = measured[budget, seed].at_budget(other), measured[other, seed]
            if truth.estimate.censored == "none":
                high = math.inf if estimate.emc_hi is None else estimate.emc_hi
                exact = estimate.censored == "none"
                error = math.log(estimate.emc / truth.emc) if exact else math.nan
                cells.append((estimate.emc_lo <= truth.emc <= high, error))
    return compared


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/budgets"))
    parser.add_argument("models", nargs="*")
    arguments = parser.parse_args()
    constant = sorted(p.stem for p in HERE.glob("*.yaml") if not p.stem.endswith("_cosine"))
    compared = {m: compare(*run_sweep(m, arguments.runs)) for m in arguments.models or constant}
    compared["all"] = {f: [c for row in compared.values() for c in row[f]] for f in FACTORS}
    print(f"| model | {' | '.join(f'{f:g} B' for f in FACTORS)} |\n|{'---|' * (1 + len(FACTORS))}")
    for model, row in compared.items():
        texts = []
        for cells in row.values():
            errors = [error for _, error in cells if not math.isnan(error)]
            median = f"{np.median(errors):+.0%}" if errors else "-"
            texts.append(f"{sum(held for held, _ in cells)} of {len(cells)}, {median}")
        print(f"| {model} | {' | '.join(texts)} |")


if __name__ == "__main__":
    main()
