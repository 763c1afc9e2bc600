"""Encode labels (whole numbers or text) as classes 0, 1, 2, ..."""

from __future__ import annotations

from typing import Any

import numpy as np

from flexhpc.data.dataset import Array, Ints
from flexhpc.errors import PointError


def encode_labels(name: str, labels: Any, sorted_labels: Array | None = None) -> tuple[Ints, Array]:
    """Return the class of each label, int64 (n,), and the sorted distinct labels.

    Args:
        name: name of the labels, for messages.
        labels: labels (n,), all whole numbers or all text.
        sorted_labels: for a test set, the sorted distinct labels of its training set; None for a
            training set.

    Raises:
        PointError: a label is missing, the labels are neither whole numbers nor text, or a test
            label does not occur in the training set.
    """
    array = np.asarray(labels)
    if array.dtype.kind == "O":
        array = _to_text_or_float64(name, array)
    if array.dtype.kind not in "biufUS" or array.ndim != 1:
        raise PointError(
            f"{name}: labels must be numbers or text of shape (n,), not {array.dtype} of shape "
            f"{array.shape}"
        )
    if array.dtype.kind == "f":
        _reject_missing_labels(name, np.isnan(array))
        fractions = array[array != np.round(array)]
        if len(fractions):
            raise PointError(f"{name}: labels must be whole numbers or text, not {fractions[0]:g}")
    if sorted_labels is None:
        sorted_labels, codes = np.unique(array, return_inverse=True)
        return codes.astype(np.int64), sorted_labels
    codes = np.minimum(np.searchsorted(sorted_labels, array), len(sorted_labels) - 1)
    unknown = array[sorted_labels[codes] != array]
    if len(unknown):
        raise PointError(f"{name}: test label {unknown[0]!s} does not occur in the training set")
    return codes.astype(np.int64), sorted_labels


def class_names_of(sorted_labels: Array) -> list[str] | None:
    """Return the sorted distinct labels as class names; None if the labels are 0, 1, 2, ..."""
    if sorted_labels.dtype.kind == "S":
        return [name.decode(errors="replace") for name in sorted_labels.tolist()]
    if sorted_labels.dtype.kind == "U":
        return [str(name) for name in sorted_labels]
    numbers = sorted_labels.astype(np.int64)
    return None if np.array_equal(numbers, np.arange(len(numbers))) else [str(i) for i in numbers]


def _reject_missing_labels(name: str, is_missing: Any) -> None:
    """Raise PointError if a label is missing; ``is_missing`` has one bool per label."""
    if count := int(np.sum(is_missing)):
        raise PointError(
            f"{name}: {count} of {len(is_missing)} labels are missing; remove these samples"
        )


def _to_text_or_float64(name: str, array: Array) -> Array:
    """Convert an array of Python objects to an array of text or float64."""
    _reject_missing_labels(name, [label is None or label != label for label in array])
    texts = [isinstance(label, (str, bytes)) for label in array]
    if any(texts) and not all(texts):
        raise PointError(f"{name}: labels contain text and numbers; use only text or only numbers")
    try:
        return np.array(array.tolist(), dtype=None if all(texts) else np.float64)
    except OverflowError:
        raise PointError(f"{name}: a label is too large for float64") from None
    except (TypeError, ValueError):
        kind = type(array[0]).__name__
        raise PointError(
            f"{name}: labels are objects of type {kind}; use numbers or text"
        ) from None
