"""Open the samples of a point's ``data`` section, from a packed file or the original files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from flexhpc.config.sections.data import Data, Images, ImageSet, KnownTable
from flexhpc.config.variants import load_implementation
from flexhpc.data.dataset import Source, Split
from flexhpc.data.image_sets import find_training_files
from flexhpc.data.images import with_size_and_colour
from flexhpc.data.packed import is_packed, open_packed
from flexhpc.data.standard_files import folders_to_search
from flexhpc.data.uci import find_known_table
from flexhpc.errors import PointError


def reading_options(data: Data) -> dict[str, Any]:
    """Return the keys that determine how samples are read, with their values; omit None values."""
    keys = {key: getattr(data, key) for key in data.reading_keys()}
    return {key: value for key, value in keys.items() if value is not None}


def open_source(data: Data, seed: int) -> Source:
    """Open the samples of a ``data`` section, from a matching packed file if there is one.

    Raises:
        PointError: the data is missing or unreadable, has the wrong shape, or was packed with
            different keys.
    """
    return _open_packed(data) or open_original_files(data, seed)


def open_original_files(data: Data, seed: int) -> Source:
    """Open the samples of a ``data`` section without searching for a packed file.

    Raises:
        PointError: the data is missing or unreadable, or has the wrong shape.
    """
    open_data = load_implementation(data)
    return _apply_size_and_colour(open_data(data, seed) if data.seeded else open_data(data), data)


def find_samples(data: Data, seed: int) -> None:
    """Check that the files of a ``data`` section exist, without reading them.

    Missing image sets are downloaded, except within ``no_downloads()``.

    Raises:
        PointError: the files are not found; the message says how to get them.
    """
    if isinstance(data, (ImageSet, KnownTable)):
        if _open_packed(data) is None:
            find = find_training_files if isinstance(data, ImageSet) else find_known_table
            find(data.source, data.root)
    elif data.location is not None and not Path(data.location).expanduser().exists():
        open_original_files(data, seed)  # raises the error


def _open_packed(data: Data) -> Source | None:
    """Open the packed file that matches a ``data`` section; return None if there is none.

    If ``data.location`` is a packed file, it is opened, or PointError is raised if it does not
    match. Otherwise, the first matching file SOURCE.packed in the folders to search is opened.
    """
    if data.seeded:
        return None
    if data.location is not None and is_packed(path := Path(data.location).expanduser()):
        packed = open_packed(path)
        if problem := _describe_mismatch(packed.keys, data):
            raise PointError(f"data.{data.location_key()}: {data.location} {problem}")
        return _apply_size_and_colour(packed.source, data)
    for folder in folders_to_search(data.source, data.location):
        if (path := folder / f"{data.source}.packed").is_file():
            packed = open_packed(path)
            if not _describe_mismatch(packed.keys, data):
                return _apply_size_and_colour(packed.source, data)
    return None


def _describe_mismatch(packed_keys: dict[str, Any], data: Data) -> str | None:
    """Describe the first difference between ``packed_keys`` and ``data``; None if they match."""
    required = reading_options(data)
    if "colour" not in packed_keys:
        required.pop("colour", None)
        if "side" not in packed_keys:
            required.pop("side", None)
    for key in data.reading_keys():
        if packed_keys.get(key) != required.get(key):
            return (
                f"was packed with {key}: {packed_keys.get(key)}, but the point has {key}: "
                f"{required.get(key)}; run `flexhpc data prepare` again"
            )
    return None


def _apply_size_and_colour(source: Source, data: Data) -> Source:
    """Return the source with images in the size and colour that the section requires."""
    if not isinstance(data, Images) or (data.side is None and data.colour is None):
        return source
    side, colour = data.side, data.colour
    if len(source.train.shape) == 1 or source.train.dtype != np.uint8:
        kind = "vectors" if len(source.train.shape) == 1 else "float32 images"
        raise PointError(f"data.side, data.colour: not supported for {kind} ({source.name})")
    train = with_size_and_colour(source.train, side, colour)
    original_test = source.open_test  # capturing ``source`` could keep all samples in memory

    def open_test_split() -> Split | None:
        split = original_test()
        return with_size_and_colour(split, side, colour) if split is not None else None

    summary = source.summary if train is source.train else None
    return replace(source, train=train, open_test=open_test_split, summary=summary)
