"""Compare EMCs computed for other budgets with measured EMCs (docs/search.md).

Usage: python -m bench.search.budgets.sweeps [--runs runs/budgets] [MODEL ...]
Runs or resumes one sweep for each model, with two seeds and with 1/16 to 2 times the budget of its
spec; prints one row per model. Takes 20 minutes on two cores.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np

import flexhpc
from bench.common import markdown_head, markdown_row
from bench.search.budgets.record import MODELS
from flexhpc.config.yaml_reader import read_yaml

FACTORS = (1 / 16, 1 / 4, 1 / 2, 2.0)
"""Multiples of the budget at which EMCs are compared."""
SEEDS = (3, 4)


def run_sweep(model: str, runs: Path) -> tuple[int, flexhpc.Run]:
    """Measure a model at all budgets; return the budget of its spec (updates), and the run."""
    spec = read_yaml(MODELS / f"{model}.yaml").value
    budget = spec["fixed"]["training"].pop("steps")
    budgets = [int(budget * factor) for factor in sorted((*FACTORS, 1.0))]
    spec["fixed"]["search"] = {"policy": "bayes", "start": 32}
    spec["grid"] = {"training.steps": budgets, "seed": list(SEEDS)}
    return budget, flexhpc.sweep(spec, runs=runs)


def compare(budget: int, run: flexhpc.Run) -> dict[float, list[tuple[bool, float]]]:
    """Compare EMCs that points with one budget give for other budgets with the measured EMCs.

    Returns:
        For each of ``FACTORS`` and each seed: whether the interval contains the measured EMC, and
        log(EMC / measured EMC), or nan if the EMC is only bounded. Seeds whose measured EMC is only
        bounded are omitted.
    """
    points = {(m.swept["training.steps"], m.swept["seed"]): m for m in run}
    cells_by_factor: dict[float, list[tuple[bool, float]]] = {factor: [] for factor in FACTORS}
    for factor, cells in cells_by_factor.items():
        for seed in SEEDS:
            other = int(budget * factor)
            computed, measured = points[budget, seed].at_budget(other), points[other, seed]
            if measured.estimate.censored == "none":
                high = math.inf if computed.emc_hi is None else computed.emc_hi
                error = math.nan
                if computed.censored == "none":
                    error = math.log(computed.emc / measured.emc)
                cells.append((computed.emc_lo <= measured.emc <= high, error))
    return cells_by_factor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/budgets"))
    parser.add_argument("models", nargs="*")
    arguments = parser.parse_args()
    models = arguments.models or sorted(path.stem for path in MODELS.glob("*.yaml"))
    rows = {model: compare(*run_sweep(model, arguments.runs)) for model in models}
    rows["all"] = {f: [cell for row in rows.values() for cell in row[f]] for f in FACTORS}
    print(markdown_head(["model", *(f"{factor:g} B" for factor in FACTORS)]))
    for model, row in rows.items():
        texts = []
        for cells in row.values():
            errors = [error for _, error in cells if not math.isnan(error)]
            median = f"{np.median(errors):+.0%}" if errors else "-"
            texts.append(f"{sum(covered for covered, _ in cells)} of {len(cells)}, {median}")
        print(markdown_row([model, *texts]))


if __name__ == "__main__":
    main()
