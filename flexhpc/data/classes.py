"""Encode labels of any type as classes 0, 1, 2, ..."""

from __future__ import annotations

from typing import Any

import numpy as np

from flexhpc.data.dataset import Array, Ints
from flexhpc.errors import PointError


def coded(name: str, labels: Any, order: Array | None = None) -> tuple[Ints, Array]:
    """Return the class of each label, int64 (n,), and the sorted labels of the classes.

    Args:
        name: name for messages.
        labels: (n,), all numbers or all text.
        order: the sorted labels of the training set, for the labels of a test set.

    Raises:
        PointError: a label is missing, a fraction, or of a type that cannot be sorted; or a test
            label does not occur in the training set.
    """
    array = np.asarray(labels)
    if array.dtype.kind == "O":
        array = _plain(name, array)
    if array.dtype.kind not in "biufUS":
        raise PointError(f"{name}: labels hold {array.dtype}, neither numbers nor text")
    if array.ndim != 1:
        raise PointError(f"{name}: labels have the shape {array.shape}, not (n,)")
    if array.dtype.kind == "f":
        if missing := int(np.isnan(array).sum()):
            raise PointError(f"{name}: {missing} of {len(array)} labels are missing")
        fractions = array[array != np.round(array)]
        if len(fractions):
            raise PointError(f"{name}: labels are numbers like {fractions[0]:g}, no classes")
    if order is None:
        order, codes = np.unique(array, return_inverse=True)
        return codes.astype(np.int64), order
    places = np.minimum(np.searchsorted(order, array), len(order) - 1)
    strange = array[order[places] != array]
    if len(strange):
        raise PointError(
            f"{name}: test labels hold {strange[0]!s}, a class without training labels"
        )
    return places.astype(np.int64), order


def names_of(order: Array) -> list[str] | None:
    """Return the class names from the sorted labels; None if the labels are 0, 1, 2, ..."""
    if order.dtype.kind in "US":
        return [one.decode(errors="replace") if isinstance(one, bytes) else one
                for one in order.tolist()]  # fmt: skip
    whole = order.astype(np.int64)
    plain = np.array_equal(whole, np.arange(len(whole)))
    return None if plain else [str(one) for one in whole.tolist()]


def _plain(name: str, array: Array) -> Array:
    """Convert an array of objects to an array of text or numbers."""
    if missing := sum(one is None or one != one for one in array):
        raise PointError(f"{name}: {missing} of {len(array)} labels are missing")
    kinds = {"text" if isinstance(one, (str, bytes)) else "numbers" for one in array}
    if len(kinds) > 1:
        raise PointError(f"{name}: labels are text and numbers; give one of them")
    try:
        return np.array(array.tolist(), dtype=None if kinds == {"text"} else np.float64)
    except OverflowError:
        raise PointError(f"{name}: labels hold a number too large for float64") from None
    except (TypeError, ValueError):
        what = type(array[0]).__name__
        raise PointError(f"{name}: labels are objects of type {what}, no classes") from None
