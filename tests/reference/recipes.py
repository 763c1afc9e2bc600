"""Recipes that are trained by flexhpc and by the plain loops, and the counted fits of the loops.

Usage: python -m tests.reference.recipes [RECIPE ...]
Counts the fits of recipes and stores them in counts.json; without names, the recipes whose counts
are missing or outdated. Takes half an hour on one core.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml

from tests.reference.data import missing_path, read
from tests.reference.loops import train

SEEDS = 8
_HERE = Path(__file__).parent
COUNTS = _HERE / "counts.json"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training run in the sections of a sweep spec.

    Attributes:
        name: family, optimizer and data.
        sections: ``data``, ``model`` and ``training``.
        n: sizes of subsets at which fits of the plain loop are counted (samples).
    """

    name: str
    sections: Mapping[str, Mapping[str, Any]]
    n: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Count:
    """Number of training runs with ``n`` samples: in total, and those that fit all samples."""

    n: int
    fitted: int
    total: int


@cache
def recipes() -> Mapping[str, Recipe]:
    """Return all recipes by name."""
    content = yaml.safe_load((_HERE / "recipes.yaml").read_text())
    return {
        name: Recipe(
            name=name,
            sections={key: sections[key] for key in ("data", "model", "training")},
            n=tuple(sections["n"]),
        )
        for name, sections in content.items()
    }


def counts_of(recipe: Recipe) -> list[Count]:
    """Return the stored counts of the plain loop.

    Raises:
        LookupError: no counts are stored for the current version of the recipe.
    """
    stored = _stored().get(recipe.name)
    if stored is None or stored["sections"] != recipe.sections:
        raise LookupError(
            f"{COUNTS.name}: no counts of the current {recipe.name}; "
            f"run python -m tests.reference.recipes {recipe.name}"
        )
    return [Count(**count) for count in stored["counts"]]


def store(recipe: Recipe, counts: list[Count]) -> None:
    """Store the counts of a recipe."""
    stored = _stored()
    stored[recipe.name] = {"sections": recipe.sections, "counts": [vars(count) for count in counts]}
    names = (name for name in recipes() if name in stored)
    lines = [f" {json.dumps(name)}: {json.dumps(stored[name])}" for name in names]
    COUNTS.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def _stored() -> dict[str, Any]:
    return json.loads(COUNTS.read_text()) if COUNTS.exists() else {}


def count(recipe: Recipe, n: int, seeds: range) -> Count:
    """Train a recipe on ``n`` samples with each seed and count the fits."""
    sections = recipe.sections
    samples = read(sections["data"])
    fitted = [train(sections["model"], sections["training"], samples, n, seed) for seed in seeds]
    return Count(n=n, fitted=sum(fitted), total=len(fitted))


def _is_outdated(recipe: Recipe) -> bool:
    try:
        return [counted.n for counted in counts_of(recipe)] != list(recipe.n)
    except LookupError:
        return True


def main() -> None:
    torch.set_num_threads(1)
    names = sys.argv[1:] or [name for name, recipe in recipes().items() if _is_outdated(recipe)]
    for name in names:
        recipe = recipes()[name]
        if path := missing_path(recipe.sections["data"]):
            print(f"{name}: skipped, {path} not found", flush=True)
            continue
        start_time = time.monotonic()
        # Different seeds for each n, so that the counts are independent.
        counts = [count(recipe, n, range(SEEDS * n, SEEDS * (n + 1))) for n in recipe.n]
        store(recipe, counts)
        text = ", ".join(f"{c.n}: {c.fitted}/{c.total}" for c in counts)
        print(f"{name}: {text} ({time.monotonic() - start_time:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
