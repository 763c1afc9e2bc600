"""Load custom data sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from flexhpc.config.sections.custom import CustomData
from flexhpc.custom.code import call_custom_code, import_object, to_array
from flexhpc.data.arrays import array_source, token_ids
from flexhpc.data.dataset import Array, Source
from flexhpc.data.images import decode_image
from flexhpc.errors import PointError


def open_custom(data: CustomData) -> Source:
    """Create a source from a custom data set, or from the result of a custom function.

    Raises:
        PointError: the data set cannot be imported, raises an exception, or does not provide
            samples and labels.
    """
    key = f"data.source: {data.source}"
    target = import_object(data.source, data.user_code, key="data.source")

    def load_arrays() -> list[Any]:
        return convert_samples(key, target(**data.kwargs) if callable(target) else target)

    arrays = call_custom_code(key, load_arrays, data.seconds)
    if isinstance(arrays[0], dict) and data.inputs != "original":
        raise PointError("data.inputs: has no effect on token ids; remove it")
    return array_source(key, arrays)


def convert_samples(name: str, samples: Any) -> list[Any]:
    """Convert custom samples to arrays: inputs, labels and, if given, test inputs and test labels.

    The inputs are an array, or the result of :func:`token_ids`.

    Args:
        name: name of the data set, for messages.
        samples: one of two forms. (1) A tuple (inputs, labels) or (inputs, labels, test inputs,
            test labels) of objects that NumPy can convert to arrays, such as torch tensors. Inputs
            may also be a list or a pandas column of images, as encoded bytes or PIL images; or a
            mapping, as a tokenizer or image processor of transformers returns it. (2) A map-style
            data set (torch, torchvision); each of its samples is read once.

    Raises:
        PointError: ``samples`` has neither form.
    """
    is_container = isinstance(samples, (tuple, list, dict, str, bytes))
    is_array = hasattr(samples, "__array__")
    has_items = hasattr(samples, "__getitem__") and hasattr(samples, "__len__")
    if has_items and not is_container and not is_array:
        samples = _read_map_style(name, samples)
    if not isinstance(samples, (tuple, list)) or len(samples) not in (2, 4):
        raise PointError(
            f"{name} returned a {type(samples).__name__}, not (inputs, labels), (inputs, labels, "
            "test inputs, test labels) or a map-style data set"
        )
    return [
        to_array(name, column) if i % 2 else _to_input_array(name, column)
        for i, column in enumerate(samples)
    ]


def _read_map_style(name: str, samples: Any) -> tuple[list[Any], list[Any]]:
    """Return the inputs and labels of a map-style data set."""
    inputs, labels = [], []
    for i in range(len(samples)):
        sample = samples[i]
        if not isinstance(sample, (tuple, list)) or len(sample) < 2:
            kind = type(sample).__name__
            raise PointError(f"{name}: sample {i} is a {kind}, not a tuple (input, label)")
        inputs.append(sample[0])
        is_scalar = hasattr(sample[1], "item") and getattr(sample[1], "ndim", 0) == 0
        labels.append(int(sample[1]) if is_scalar else sample[1])
    return inputs, labels


def _to_input_array(name: str, column: Any) -> Any:
    """Convert inputs to one array, or to the result of :func:`token_ids`; decode images."""
    if isinstance(column, Mapping):
        if {*column} == {"pixel_values"}:
            return _to_input_array(name, column["pixel_values"])
        return token_ids(name, {key: to_array(name, column[key]) for key in column})
    is_objects = getattr(getattr(column, "dtype", None), "kind", "") == "O"
    rows = list(column) if isinstance(column, list) or is_objects else []
    if rows and (isinstance(rows[0], bytes) or hasattr(rows[0], "getbands")):
        modes = {getattr(image, "mode", "") for image in rows}
        images: list[Array] = []
        for row, image in enumerate(rows):
            shape = images[0].shape if images else None
            images.append(decode_image((f"{name}, row {row}", image), None, shape))
        stacked = np.stack(images)
        return np.ascontiguousarray(stacked[:, :1]) if modes <= {"L", "1"} else stacked
    if rows and hasattr(rows[0], "shape"):
        arrays = [to_array(name, row) for row in rows]
        for i, array in enumerate(arrays):
            if array.shape != arrays[0].shape:
                raise PointError(
                    f"{name}: sample {i} has shape {array.shape}, but sample 0 has shape "
                    f"{arrays[0].shape}"
                )
        return np.stack(arrays)
    return to_array(name, column)
