"""What a point of a study does otherwise than its base, in the words of a table."""

from __future__ import annotations

from typing import Any

from flexhpc.config import Point

TIMES = {
    "model.gain": "gain",
    "training.lr": "learning rate",
    "training.batch_size": "batch size",
    "training.steps": "budget",
}
"""Keys whose values are told by their factor, and what they are called."""
NAMED = {
    "model.init": "initialisation",
    "data.standardise": "standardisation",
    "training.batches": "cutting of batches",
    "training.optimizer": "optimizer",
}
"""Keys whose values are told as they are, and what they are called."""
SECTIONS = ("data", "model", "training")
_BESIDE_OPTIMIZER = "training."
_PLAIN_INITS, _PLAIN_GAIN = ("torch", "lecun"), 1.0
"""Initialisations whose gain is 1 where none is given."""


def network(point: Point) -> tuple[str, str]:
    """Return the family and the data set of a point: points with the same have one base."""
    return point.model.family, point.data.source


def choice(point: Point, base: Point) -> str:
    """Return what a point does otherwise than its base, as ``learning rate x 3``.

    An optimizer comes with a rate and settings of its own, so what else of the training differs
    then is part of that choice.

    Raises:
        ValueError: they differ in nothing, or in more than one choice.
    """
    before, after = _values(base), _values(point)
    differing = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    if "training.optimizer" in differing:
        differing = [k for k in differing if not k.startswith(_BESIDE_OPTIMIZER)]
        differing.append("training.optimizer")
    if len(differing) != 1:
        what = ", ".join(differing) or "nothing"
        raise ValueError(f"{point.label or point.id} differs from its base in {what}, not one key")
    (key,) = differing
    plain = before.get("model.init") in _PLAIN_INITS
    return _description(key, before.get(key), after.get(key), plain=plain)


def _values(point: Point) -> dict[str, Any]:
    """Return all that is chosen for a point, by dotted path."""
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
