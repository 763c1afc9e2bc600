"""Row labels of the table: the choice in which a point differs from its base."""

from __future__ import annotations

from typing import Any

from flexhpc.config import Point

TIMES = {
    "model.gain": "gain",
    "training.lr": "learning rate",
    "training.batch_size": "batch size",
    "training.steps": "budget",
}
"""Keys whose change is written as a factor, and their labels."""
NAMED = {
    "model.init": "initialisation",
    "data.standardise": "standardisation",
    "training.batches": "batch split",
    "training.optimizer": "optimizer",
}
"""Keys whose values are written out, and their labels."""
SECTIONS = ("data", "model", "training")
_BESIDE_OPTIMIZER = "training."
_PLAIN_INITS, _PLAIN_GAIN = ("torch", "lecun"), 1.0
"""Initialisations whose default gain is 1."""


def network(point: Point) -> tuple[str, str]:
    """Return the family and the data set of a point, which are those of its base."""
    return point.model.family, point.data.source


def choice(point: Point, base: Point) -> str:
    """Return the choice in which a point differs from its base, for example ``learning rate x 3``.

    If the optimizer differs, all other differences in ``training`` are part of this choice, because
    each optimizer needs its own rate and settings.

    Raises:
        ValueError: The points do not differ, or differ in more than one choice.
    """
    before, after = _values(base), _values(point)
    differing = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    if "training.optimizer" in differing:
        differing = [k for k in differing if not k.startswith(_BESIDE_OPTIMIZER)]
        differing.append("training.optimizer")
    if len(differing) != 1:
        keys = ", ".join(differing) or "nothing"
        raise ValueError(f"{point.label or point.id} differs from its base in {keys}, not one key")
    (key,) = differing
    plain = before.get("model.init") in _PLAIN_INITS
    return _description(key, before.get(key), after.get(key), plain=plain)


def _values(point: Point) -> dict[str, Any]:
    """Return all settings of a point by dotted path."""
    return {
        f"{section}.{key}": value
        for section in SECTIONS
        for key, value in getattr(point, section).model_dump(mode="json").items()
    }


def _description(key: str, before: Any, after: Any, *, plain: bool) -> str:
    if key == "model.gain" and before is None and plain:
        before = _PLAIN_GAIN
    if key in TIMES and before and after:
        times = after / before
        sign, factor = ("x", times) if times > 1 else ("/", 1 / times)
        return f"{TIMES[key]} {sign} {factor:.2g}"
    return f"{NAMED.get(key, key.partition('.')[2])}: {before} to {after}"
