"""Count how often the plain loops fit, and store it in counts.json.

Usage: python -m tests.reference.record [RECIPE ...]
Without names it makes what is missing or was counted of other words. Half an hour on a core.
"""

from __future__ import annotations

import sys
import time

import torch

from tests.reference.data import needed, read
from tests.reference.loops import train
from tests.reference.recipes import Count, Recipe, counts_of, recipes, store

SEEDS = 8


def count(recipe: Recipe, n: int, seeds: range) -> Count:
    """Train a recipe at one ``n`` with each of the seeds."""
    words = recipe.words
    samples = read(words["data"])
    ended = [train(words["model"], words["training"], samples, n, seed) for seed in seeds]
    return Count(n=n, fitted=sum(end.fitted for end in ended), of=len(ended))


def _missing(recipe: Recipe) -> bool:
    try:
        return [counted.n for counted in counts_of(recipe)] != list(recipe.n)
    except LookupError:
        return True


def main() -> None:
    torch.set_num_threads(1)
    names = sys.argv[1:] or [name for name, recipe in recipes().items() if _missing(recipe)]
    for name in names:
        recipe = recipes()[name]
        place = needed(recipe.words["data"])
        if place is not None and not place.exists():
            print(f"{name}: left out, there is no {place}", flush=True)
            continue
        started = time.monotonic()
        # Every n has seeds of its own, so that its count is independent of the others.
        counts = [count(recipe, n, range(SEEDS * n, SEEDS * (n + 1))) for n in recipe.n]
        store(recipe, counts)
        told = ", ".join(f"{c.n}: {c.fitted}/{c.of}" for c in counts)
        print(f"{name}: {told} ({time.monotonic() - started:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
