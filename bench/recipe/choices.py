"""Row labels of the table in docs/recipe.md: how a point differs from its base point."""

from __future__ import annotations

from typing import Any

from flexhpc.config import Point

FACTOR_LABELS = {
    "model.gain": "gain",
    "training.lr": "learning rate",
    "training.batch_size": "batch size",
    "training.steps": "budget",
}
"""Labels of the keys whose change is written as a factor."""
VALUE_LABELS = {
    "model.init": "initialisation",
    "data.standardise": "standardisation",
    "training.batches": "batch split",
    "training.optimizer": "optimizer",
}
"""Labels of the keys whose old and new values are written."""
SECTIONS = ("data", "model", "training")
_UNIT_GAIN_INITS = ("torch", "lecun")
"""Initialisations whose default gain is 1."""


def network(point: Point) -> tuple[str, str]:
    """Return the model family and the data set, which a point shares with its base point."""
    return point.model.family, point.data.source


def choice(point: Point, base: Point) -> str:
    """Return how a point differs from its base point, for example ``learning rate x 3``.

    If the optimizer differs, all differences in ``training`` count as one choice, because each
    optimizer requires a different learning rate and settings.

    Raises:
        ValueError: The points do not differ, or differ in more than one choice.
    """
    before, after = _values(base), _values(point)
    differing = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    if "training.optimizer" in differing:
        differing = [key for key in differing if not key.startswith("training.")]
        differing.append("training.optimizer")
    if len(differing) != 1:
        keys = ", ".join(differing) or "nothing"
        raise ValueError(
            f"{point.label or point.id}: must differ from its base in one key, differs in {keys}"
        )
    (key,) = differing
    old, new = before.get(key), after.get(key)
    if key == "model.gain" and old is None and before.get("model.init") in _UNIT_GAIN_INITS:
        old = 1.0
    if key in FACTOR_LABELS and old and new:
        sign, factor = ("x", new / old) if new > old else ("/", old / new)
        return f"{FACTOR_LABELS[key]} {sign} {factor:.2g}"
    return f"{VALUE_LABELS.get(key, key.partition('.')[2])}: {old} to {new}"


def _values(point: Point) -> dict[str, Any]:
    """Return all settings of a point by dotted path."""
    return {
        f"{section}.{key}": value
        for section in SECTIONS
        for key, value in getattr(point, section).model_dump(mode="json").items()
    }
