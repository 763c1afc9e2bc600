"""Count fits with near-equal batches and with a smaller last batch (table of docs/concepts.md).

Usage: python -m bench.tail_batch
Trains the networks of tail_batch.yaml in this folder, with eight seeds at each n.
"""

from __future__ import annotations

from pathlib import Path

from bench.common import markdown_head, markdown_row
from bench.recipe.full_batch import train
from flexhpc.config import load_points
from flexhpc.search import Probe

SPEC = Path(__file__).with_suffix(".yaml")
SIZES = (66, 100, 120, 130, 150, 170, 194)
SEEDS = 8


def main() -> None:
    print(markdown_head(["n", *map(str, SIZES)]))
    for point in load_points(SPEC)[1]:
        counts = []
        for n in SIZES:
            verdicts = [train((point, Probe(n, repeat))) for repeat in range(SEEDS)]
            counts.append(verdicts.count("fit"))
        print(markdown_row([point.label, *map(str, counts)]), flush=True)


if __name__ == "__main__":
    main()
