"""Samples of the user's own."""

from __future__ import annotations

from typing import Any

import numpy as np

from flexhpc.data.dataset import Array, Ints, Part, Source
from flexhpc.errors import PointError
from flexhpc.own_code import array_of, load, run
from flexhpc.spec.sections.own import OwnData


def open_own(data: OwnData, seed: int) -> Source:
    """Call what loads the samples.

    Raises:
        PointError: it cannot be imported, raises something, or returns no samples and labels.
    """
    key = f"data.source: {data.source}"
    give = load(data.source, data.place, pinned=data.version is not None, key="data.source")
    given = run(key, lambda: give(**data.kwargs) if callable(give) else give, data.seconds)
    return source_of(key, given)


def source_of(name: str, given: Any) -> Source:
    """Return the source that arrays are.

    Args:
        name: for messages.
        given: (inputs, labels) or (inputs, labels, test inputs, test labels); anything that NumPy
            makes an array of, torch's tensors among them.

    Raises:
        PointError: they are something else.
    """
    if not isinstance(given, (tuple, list)) or len(given) not in (2, 4):
        raise PointError(
            f"{name} gave a {type(given).__name__}, not (inputs, labels) or (inputs, labels, test "
            "inputs, test labels)"
        )
    inputs, labels, *rest = (array_of(name, one) for one in given)
    order, coded = np.unique(labels, return_inverse=True)
    if order.dtype.kind == "f" and not np.array_equal(order, order.astype(np.int64)):
        raise PointError(f"{name}: labels are numbers like {order[0]:g}, which are no classes")
    train = _part(name, inputs, coded)
    test = None
    if rest:
        places = np.searchsorted(order, rest[1])
        if not np.array_equal(order[np.minimum(places, len(order) - 1)], rest[1]):
            raise PointError(f"{name}: the test labels hold a class that no training label has")
        test = _part(name, rest[0], places)
    return Source(name=name, classes=len(order), train=train, test=lambda: test)


def _part(name: str, inputs: Array, labels: Ints) -> Part:
    """Return samples as flexhpc holds them: uint8 images, or float32 vectors and images."""
    if labels.ndim != 1 or len(labels) != len(inputs):
        raise PointError(f"{name}: inputs {inputs.shape} and labels {labels.shape} do not match")
    if len(labels) < 2:
        raise PointError(f"{name}: {len(labels)} samples are too few")
    if inputs.ndim not in (2, 3, 4) or 0 in inputs.shape:
        raise PointError(
            f"{name}: inputs {inputs.shape} are neither vectors (n, features) nor images "
            "(n, channels, height, width) or (n, height, width)"
        )
    if inputs.ndim == 3:
        inputs = inputs[:, None]
    if inputs.dtype != np.uint8:
        if inputs.dtype.kind not in "biuf":
            raise PointError(f"{name}: inputs hold {inputs.dtype}, not numbers")
        inputs = inputs.astype(np.float32)
        if np.isinf(inputs).any():
            raise PointError(f"{name}: inputs hold infinite numbers")
        if inputs.ndim > 2 and np.isnan(inputs).any():
            raise PointError(f"{name}: images hold nan")
    return Part.of(np.ascontiguousarray(inputs), labels)
