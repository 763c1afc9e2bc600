"""Print the table of docs/recipe.md with the verdicts of full-batch gradient descent.

Usage: python -m bench.recipe.full_batch
Trains the network of sweeps/mini/optimizers.yaml with gd, for 300 epochs and for 2,000 updates, at
two learning rates each (full_batch.yaml in this folder). Takes three minutes on two cores.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from bench.common import markdown_head, markdown_row
from flexhpc.config import Point, load_points
from flexhpc.config.sections.training import Gd
from flexhpc.data import load_samples
from flexhpc.measuring.probe import run_probe
from flexhpc.search import Probe
from flexhpc.training import Callbacks, Group

SPEC = Path(__file__).with_suffix(".yaml")
SIZES = (250, 300, 362, 430, 500)
SEEDS = 4

Case = tuple[Point, Probe]


def cases() -> dict[str, list[Case]]:
    """Return all training runs, grouped by learning rate and budget."""
    groups: dict[str, list[Case]] = {}
    for point in load_points(SPEC)[1]:
        for number, arm in enumerate(point.arms):
            gd = arm.training
            assert isinstance(gd, Gd)
            budget = f"{gd.epochs} epochs" if gd.epochs else f"{gd.steps:,} updates"
            groups[f"{gd.lr}, {budget}"] = [
                (point, Probe(n, repeat, number)) for n, repeat in product(SIZES, range(SEEDS))
            ]
    return groups


def train(case: Case) -> str:
    """Train once on one thread; return the verdict."""
    point, probe = case
    torch.set_num_threads(1)
    samples = load_samples(point.data, point.seed)
    group = Group(torch.device("cpu"))
    return run_probe(point, samples, probe, None, group, Callbacks()).verdict


def row(name: str, group: list[Case], verdicts: list[str]) -> str:
    """Format a row of the table: counts of verdicts at each n."""
    cells = [
        counts_text(v for (_, probe), v in zip(group, verdicts, strict=True) if probe.n == n)
        for n in SIZES
    ]
    return markdown_row([name, *cells])


def counts_text(verdicts: Iterable[str]) -> str:
    """Format the number of each verdict: ``3 fit, 1 unstable``."""
    return ", ".join(f"{count} {name}" for name, count in sorted(Counter(verdicts).items()))


def main() -> None:
    print(markdown_head(["rate, budget", *(f"n = {n}" for n in SIZES)]))
    all_verdicts: list[str] = []
    with ProcessPoolExecutor(2) as pool:
        for name, group in cases().items():
            verdicts = list(pool.map(train, group))
            all_verdicts += verdicts
            print(row(name, group, verdicts), flush=True)
    print(f"\nAll {len(all_verdicts)} training runs: {counts_text(all_verdicts)}.")


if __name__ == "__main__":
    main()
