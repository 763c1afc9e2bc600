"""Custom data sets."""

from __future__ import annotations

from typing import Any

import numpy as np

from flexhpc.config.sections.custom import CustomData
from flexhpc.custom.code import array_of, load, run
from flexhpc.data.arrays import source_of
from flexhpc.data.dataset import Array, Source
from flexhpc.data.decode import decoded
from flexhpc.errors import PointError


def open_own(data: CustomData, seed: int) -> Source:
    """Call the user's function and return its samples as a source.

    Raises:
        PointError: the function cannot be imported, raises an exception, or does not return samples
            and labels.
    """
    key = f"data.source: {data.source}"
    give = load(data.source, data.place, pinned=data.version is not None, key="data.source")

    def samples() -> list[Array]:
        return arrays_of(key, give(**data.kwargs) if callable(give) else give)

    return source_of(key, run(key, samples, data.seconds))


def arrays_of(name: str, given: Any) -> list[Array]:
    """Return custom samples as [inputs, labels], with test inputs and test labels if there are any.

    Args:
        name: name for messages.
        given: two or four objects that NumPy can convert to arrays, including torch tensors; inputs
            may also be images as bytes or PIL images, such as a column of a DataFrame. Or a
            map-style data set of torch or torchvision, of which each sample is read once.

    Raises:
        PointError: ``given`` is anything else.
    """
    if _is_indexed(given):
        given = _indexed(name, given)
    if not isinstance(given, (tuple, list)) or len(given) not in (2, 4):
        raise PointError(
            f"{name} gave a {type(given).__name__}, not (inputs, labels) or (inputs, labels, test "
            "inputs, test labels), nor a data set that is indexed"
        )
    return [(_inputs, array_of)[i % 2](name, one) for i, one in enumerate(given)]


def _is_indexed(given: Any) -> bool:
    """Return whether an object is a map-style data set."""
    known = isinstance(given, (tuple, list, dict, str, bytes, np.ndarray))
    arrays = known or hasattr(given, "__array__")
    return not arrays and hasattr(given, "__getitem__") and hasattr(given, "__len__")


def _indexed(name: str, given: Any) -> tuple[list[Any], list[Any]]:
    """Return the inputs and labels of a map-style data set."""
    inputs, labels = [], []
    for i in range(len(given)):
        sample = given[i]
        if not isinstance(sample, (tuple, list)) or len(sample) < 2:
            what = type(sample).__name__
            raise PointError(f"{name}: sample {i} is a {what}, not (input, label)")
        inputs.append(sample[0])
        labels.append(int(sample[1]) if hasattr(sample[1], "item") else sample[1])
    return inputs, labels


def _inputs(name: str, given: Any) -> Array:
    """Return inputs as an array; images are decoded."""
    column = given if isinstance(given, list) else list(given) if _holds_objects(given) else []
    if len(column) and (isinstance(column[0], bytes) or hasattr(column[0], "getbands")):
        modes = {getattr(image, "mode", "") for image in column}
        shape: tuple[int, ...] | None = None
        images = []
        for row, image in enumerate(column):
            images.append(decoded((f"{name}, row {row}", image), None, shape))
            shape = images[0].shape
        stacked = np.stack(images)
        return np.ascontiguousarray(stacked[:, :1]) if modes <= {"L", "1"} else stacked
    if len(column) and hasattr(column[0], "shape"):
        rows = [array_of(name, one) for one in column]
        for row, one in enumerate(rows):
            if one.shape != rows[0].shape:
                raise PointError(f"{name}: sample {row} is {one.shape}, sample 0 {rows[0].shape}")
        return np.stack(rows)
    return array_of(name, given)


def _holds_objects(given: Any) -> bool:
    return getattr(getattr(given, "dtype", None), "kind", "") == "O"
