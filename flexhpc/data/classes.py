"""Encode labels of any type as classes 0, 1, 2, ..."""

from __future__ import annotations

from typing import Any

import numpy as np

from flexhpc.data.dataset import Array, Ints
from flexhpc.errors import PointError


def encode_labels(name: str, labels: Any, order: Array | None = None) -> tuple[Ints, Array]:
    """Return the class of each label, int64 (n,), and the sorted distinct labels.

    Args:
        name: name in messages.
        labels: (n,), all numbers or all text.
        order: sorted distinct labels of the training set, to encode the labels of a test set.

    Raises:
        PointError: a label is missing, a fraction, or of a type that cannot be sorted; or a test
            label does not occur in the training set.
    """
    array = np.asarray(labels)
    if array.dtype.kind == "O":
        array = _to_plain_array(name, array)
    if array.dtype.kind not in "biufUS" or array.ndim != 1:
        raise PointError(
            f"{name}: labels are {array.dtype} {array.shape}, neither numbers (n,) nor text (n,)"
        )
    if array.dtype.kind == "f":
        _check_missing(name, np.isnan(array))
        fractions = array[array != np.round(array)]
        if len(fractions):
            raise PointError(f"{name}: labels must be whole numbers or text, not {fractions[0]:g}")
    if order is None:
        order, codes = np.unique(array, return_inverse=True)
        return codes.astype(np.int64), order
    codes = np.minimum(np.searchsorted(order, array), len(order) - 1)
    unknown = array[order[codes] != array]
    if len(unknown):
        raise PointError(f"{name}: test label {unknown[0]!s} does not occur in the training set")
    return codes.astype(np.int64), order


def class_names_of(order: Array) -> list[str] | None:
    """Return the class names from the sorted labels; None if the labels are 0, 1, 2, ..."""
    if order.dtype.kind == "S":
        return [name.decode(errors="replace") for name in order.tolist()]
    if order.dtype.kind == "U":
        return [str(name) for name in order]
    numbers = order.astype(np.int64)
    return None if np.array_equal(numbers, np.arange(len(numbers))) else [str(i) for i in numbers]


def _check_missing(name: str, missing: Any) -> None:
    if count := int(np.sum(missing)):
        raise PointError(
            f"{name}: {count} of {len(missing)} labels are missing; remove the samples"
        )


def _to_plain_array(name: str, array: Array) -> Array:
    """Convert an array of objects to an array of text or numbers."""
    _check_missing(name, [label is None or label != label for label in array])
    texts = [isinstance(label, (str, bytes)) for label in array]
    if any(texts) and not all(texts):
        raise PointError(f"{name}: labels mix text and numbers; use only one of them")
    try:
        return np.array(array.tolist(), dtype=None if all(texts) else np.float64)
    except OverflowError:
        raise PointError(f"{name}: a label is too large for float64") from None
    except (TypeError, ValueError):
        kind = type(array[0]).__name__
        raise PointError(f"{name}: labels are objects of type {kind}, not classes") from None
