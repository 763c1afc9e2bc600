"""Read the content of a point file, restricted to the HDF5 features that point files use.

A malicious or damaged HDF5 file can harm its reader: links can point to other files or form cycles,
and a data set of a few bytes can declare more elements than fit in memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5l, h5o, h5s, h5t, h5z
from numpy.typing import NDArray

from flexhpc.store.seal import CorruptFile

AS_TEXT = "json"
"""Name of the attribute that holds all other attributes of its group as one JSON object."""
MOST_NUMBERS = 2**24
"""Largest number of elements of a data set: a mask of 134 million samples, or a curve of 17
million epochs."""
_MOST_TOTAL = 2**30
"""Largest total size of the arrays of a file (bytes)."""
_MOST_OBJECTS = 200_000
_MOST_ATTRIBUTES = 1_000
_LONGEST_ATTRIBUTE = 10_000
_DEEPEST = 4
_FILTERS = (h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32)


@dataclass(frozen=True)
class Tree:
    """An HDF5 group.

    Attributes:
        attributes: attributes as plain Python values; arrays are tuples.
        groups: subgroups by name.
        arrays: by name, a function that reads a one-dimensional numeric data set while the file is
            open; it raises ValueError for any other data set.
    """

    attributes: Mapping[str, Any]
    groups: Mapping[str, Tree]
    arrays: Mapping[str, Callable[[], NDArray[Any]]]

    def group(self, name: str) -> Tree | None:
        """Return a subgroup, or None if it does not exist.

        Raises:
            ValueError: ``name`` is a data set.
        """
        if name in self.arrays:
            raise CorruptFile(f"{name} is no group")
        return self.groups.get(name)


def tree(file: h5py.File) -> Tree:
    """Read the groups and attributes of a file, and prepare reading of its arrays.

    Raises:
        ValueError: the file contains anything but groups, small attributes and numeric data sets.
    """
    return _Walk().group(file.id, "/", 0)


class _Walk:
    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._bytes = 0

    def group(self, group: h5g.GroupID, path: str, depth: int) -> Tree:
        if depth > _DEEPEST:
            raise CorruptFile(f"{path} lies too deep")
        groups: dict[str, Tree] = {}
        arrays: dict[str, Callable[[], NDArray[Any]]] = {}
        for name in group:
            key = name.decode(errors="replace")
            inner = f"{path}{key}"
            if group.links.get_info(name).type != h5l.TYPE_HARD:
                raise CorruptFile(f"{inner} is a link to somewhere else")
            found = h5o.get_info(group, name)
            if found.addr in self._seen:
                raise CorruptFile(f"{inner} is there twice")
            self._seen.add(found.addr)
            if len(self._seen) > _MOST_OBJECTS:
                raise CorruptFile(f"holds more than {_MOST_OBJECTS:,} objects")
            if found.type == h5o.TYPE_GROUP:
                groups[key] = self.group(h5o.open(group, name), f"{inner}/", depth + 1)
            elif found.type == h5o.TYPE_DATASET:
                arrays[key] = partial(self._array, group, name, inner)
            else:
                raise CorruptFile(f"{inner} is neither a group nor a data set")
        return Tree(self._attributes(group, path), groups, arrays)

    def _array(self, group: h5g.GroupID, name: bytes, path: str) -> NDArray[Any]:
        dataset = h5d.open(group, name)
        made = dataset.get_create_plist()
        if made.get_layout() == h5d.VIRTUAL or made.get_external_count():
            raise CorruptFile(f"{path} lies in another file")
        filters = [made.get_filter(i)[0] for i in range(made.get_nfilters())]
        if any(one not in _FILTERS for one in filters):
            raise CorruptFile(f"{path} is packed in an unknown way")
        if dataset.dtype.kind not in "biuf":
            raise CorruptFile(f"{path} holds no numbers")
        if len(dataset.shape) != 1 or dataset.shape[0] > MOST_NUMBERS:
            raise CorruptFile(f"{path} has the shape {dataset.shape}")
        self._bytes += dataset.shape[0] * dataset.dtype.itemsize
        if self._bytes > _MOST_TOTAL:
            raise CorruptFile("declares more numbers than such a file has")
        values = np.empty(dataset.shape, dataset.dtype)
        dataset.read(h5s.ALL, h5s.ALL, values)
        return values

    def _attributes(self, where: h5g.GroupID, path: str) -> dict[str, Any]:
        if h5a.exists(where, AS_TEXT.encode()):
            return _of_text(_value(h5a.open(where, AS_TEXT.encode()), path), path)
        count = h5a.get_num_attrs(where)
        if count > _MOST_ATTRIBUTES:
            raise CorruptFile(f"{path} has {count:,} attributes")
        names: list[bytes] = []
        h5a.iterate(where, lambda name, *_: names.append(name))  # access by index is slower
        return {
            name.decode(errors="replace"): _value(h5a.open(where, name), path) for name in names
        }


def _of_text(text: Any, path: str) -> dict[str, Any]:
    """Parse the attributes of a group from their JSON string."""
    values = json.loads(text)
    if not isinstance(values, dict):
        raise CorruptFile(f"{path} has attributes that are no mapping")
    return {key: tuple(one) if isinstance(one, list) else one for key, one in values.items()}


def _value(attribute: h5a.AttrID, path: str) -> Any:
    """Read an attribute as a plain Python value; arrays become tuples."""
    space, kind = attribute.get_space(), attribute.dtype
    if space.get_simple_extent_type() == h5s.NULL:
        raise CorruptFile(f"{path} has an attribute without a value")
    shape = space.get_simple_extent_dims()
    if np.prod(shape, dtype=float) > _LONGEST_ATTRIBUTE:
        raise CorruptFile(f"{path} has an attribute of shape {shape}")
    text = h5py.check_string_dtype(kind)
    if kind.kind not in "biufSU" and text is None:
        raise CorruptFile(f"{path} has an attribute that is neither text nor numbers")
    values = np.empty(shape, kind)
    attribute.read(values, mtype=h5t.py_create(kind))
    plain = values.tolist() if text is None else _texts(values.tolist())
    return tuple(plain) if isinstance(plain, list) else plain


def _texts(value: Any) -> Any:
    if isinstance(value, list):
        return [_texts(one) for one in value]
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
