"""The recipes that both sides train, and what the plain loops counted of each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

_HERE = Path(__file__).parent
COUNTS = _HERE / "counts.json"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to train, in the words of a sweep spec.

    Attributes:
        name: says family, optimizer and data.
        words: its sections ``data``, ``model`` and ``training``.
        n: the sizes of subsets at which the plain loop is counted (samples).
    """

    name: str
    words: Mapping[str, Mapping[str, Any]]
    n: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Count:
    """How many trainings at one ``n`` ended with a perfect fit: ``fitted`` out of ``of``."""

    n: int
    fitted: int
    of: int


@cache
def recipes() -> Mapping[str, Recipe]:
    """Return all recipes by name."""
    written = yaml.safe_load((_HERE / "recipes.yaml").read_text())
    return {
        name: Recipe(
            name=name,
            words={key: words[key] for key in ("data", "model", "training")},
            n=tuple(words["n"]),
        )
        for name, words in written.items()
    }


def counts_of(recipe: Recipe) -> list[Count]:
    """Return the stored counts of the plain loop.

    Raises:
        LookupError: none are stored, or they are those of other words.
    """
    stored = _stored().get(recipe.name)
    if stored is None or stored["words"] != recipe.words:
        raise LookupError(
            f"{COUNTS.name} holds no counts of {recipe.name} as it is written now; "
            f"run python -m tests.reference.record {recipe.name}"
        )
    return [Count(**count) for count in stored["counts"]]


def store(recipe: Recipe, counts: list[Count]) -> None:
    """Write the counts of one recipe beside those of the others."""
    stored = _stored()
    stored[recipe.name] = {"words": recipe.words, "counts": [vars(count) for count in counts]}
    kept = (name for name in recipes() if name in stored)
    lines = [f" {json.dumps(name)}: {json.dumps(stored[name])}" for name in kept]
    COUNTS.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def _stored() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(COUNTS.read_text()) if COUNTS.exists() else {}
    return found
