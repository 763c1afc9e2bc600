"""What may be in a point's file at all; seen before any of it is read.

A file is taken for what it claims to be by whoever reads it: links can lead to other files or
around in circles, a data set of a few bytes can declare more elements than memory holds.
"""

from __future__ import annotations

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5l, h5o, h5z

MOST_NUMBERS = 2**24
"""Elements of a data set: a mask of 134 million samples, a curve of 17 million epochs."""
_MOST_TOTAL = 2**27
_MOST_OBJECTS = 200_000
_MOST_ATTRIBUTES = 1_000
_LONGEST_ATTRIBUTE = 10_000
_DEEPEST = 4
_FILTERS = (h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32)


def check_structure(file: h5py.File) -> None:
    """Check that a file is a tree of groups, small attributes and arrays of numbers.

    Raises:
        ValueError: it holds anything else.
    """
    _Walk().group(file.id, "/", 0)


class _Walk:
    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._numbers = 0

    def group(self, group: h5g.GroupID, path: str, depth: int) -> None:
        if depth > _DEEPEST:
            raise ValueError(f"{path} lies too deep")
        self._attributes(group, path)
        for name in group:
            inner = f"{path}{name.decode(errors='replace')}"
            if group.links.get_info(name).type != h5l.TYPE_HARD:
                raise ValueError(f"{inner} is a link to somewhere else")
            found = h5o.open(group, name)
            place = h5o.get_info(found).addr
            if place in self._seen:
                raise ValueError(f"{inner} is there twice")
            self._seen.add(place)
            if len(self._seen) > _MOST_OBJECTS:
                raise ValueError(f"holds more than {_MOST_OBJECTS:,} objects")
            if isinstance(found, h5g.GroupID):
                self.group(found, f"{inner}/", depth + 1)
            elif isinstance(found, h5d.DatasetID):
                self._dataset(found, inner)
            else:
                raise ValueError(f"{inner} is neither a group nor a data set")

    def _dataset(self, dataset: h5d.DatasetID, path: str) -> None:
        self._attributes(dataset, path)
        made = dataset.get_create_plist()
        if made.get_layout() == h5d.VIRTUAL or made.get_external_count():
            raise ValueError(f"{path} lies in another file")
        filters = [made.get_filter(i)[0] for i in range(made.get_nfilters())]
        if any(one not in _FILTERS for one in filters):
            raise ValueError(f"{path} is packed in an unknown way")
        if dataset.dtype.kind not in "biuf":
            raise ValueError(f"{path} holds no numbers")
        if len(dataset.shape) != 1 or dataset.shape[0] > MOST_NUMBERS:
            raise ValueError(f"{path} has the shape {dataset.shape}")
        self._numbers += dataset.shape[0]
        if self._numbers > _MOST_TOTAL:
            raise ValueError("declares more numbers than such a file has")

    def _attributes(self, where: h5g.GroupID | h5d.DatasetID, path: str) -> None:
        count = h5a.get_num_attrs(where)
        if count > _MOST_ATTRIBUTES:
            raise ValueError(f"{path} has {count:,} attributes")
        for index in range(count):
            attribute = h5a.open(where, index=index)
            if np.prod(attribute.shape, dtype=float) > _LONGEST_ATTRIBUTE:
                raise ValueError(f"{path} has an attribute of shape {attribute.shape}")
            kind = attribute.dtype
            if kind.kind not in "biufSU" and h5py.check_string_dtype(kind) is None:
                raise ValueError(f"{path} has an attribute that is neither text nor numbers")
