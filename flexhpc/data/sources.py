"""Open the source of a point from its ``data`` section: a packed file or the original files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from flexhpc.config.sections.data import (
    Data,
    Digits,
    Gaussian,
    ImageFolder,
    Images,
    ImageSet,
    KnownTable,
    RandomTokens,
    Table,
)
from flexhpc.config.variants import implementation
from flexhpc.data.cifar import open_cifar
from flexhpc.data.cifar5m import open_cifar5m
from flexhpc.data.dataset import Part, Source
from flexhpc.data.idx import open_mnist
from flexhpc.data.image_folder import open_image_folder
from flexhpc.data.images import reshaped
from flexhpc.data.packed import is_packed, open_packed
from flexhpc.data.places import roots
from flexhpc.data.synthetic import make_gaussian, make_random_tokens, open_digits
from flexhpc.data.table import open_table
from flexhpc.data.uci import open_known_table
from flexhpc.errors import PointError


def reading_of(data: Data) -> dict[str, Any]:
    """Return the keys of a section that determine which values are read, except those that are
    None."""
    keys = {key: getattr(data, key) for key in data.reading_keys()}
    return {key: value for key, value in keys.items() if value is not None}


def open_source(data: Data, seed: int) -> Source:
    """Open the source of a point.

    Raises:
        PointError: the data is missing, unreadable, of the wrong shape, or packed with other keys.
    """
    return _open_packed(data) or open_files(data, seed)


def open_files(data: Data, seed: int) -> Source:
    """Open the source of a point from the original files, not from a packed file.

    Raises:
        PointError: the data is missing, unreadable or of the wrong shape.
    """
    return _as_asked(implementation(data)(data, seed), data)


def digits(data: Digits, seed: int) -> Source:
    """Open the digits of scikit-learn."""
    return open_digits()


def gaussian(data: Gaussian, seed: int) -> Source:
    """Draw Gaussian inputs, with labels of a random linear teacher."""
    return make_gaussian(data.dims, data.classes, data.size, seed)


def random_tokens(data: RandomTokens, seed: int) -> Source:
    """Draw sequences of random tokens."""
    return make_random_tokens(data.vocabulary, data.length, data.size, seed)


def table(data: Table, seed: int) -> Source:
    """Open a table."""
    return open_table(data)


def known_table(data: KnownTable, seed: int) -> Source:
    """Open a standard UCI table."""
    return open_known_table(data.source, data.root)


def image_folder(data: ImageFolder, seed: int) -> Source:
    """Open a folder of images."""
    _no_file(data.root)
    return open_image_folder(data.root, data.side)


def image_set(data: ImageSet, seed: int) -> Source:
    """Open a standard image set."""
    _no_file(data.root)
    openers = {"cifar5m": open_cifar5m, "cifar10": open_cifar, "cifar100": open_cifar}
    return openers.get(data.source, open_mnist)(data.source, data.root)


def _no_file(root: str | None) -> None:
    if root is not None and Path(root).expanduser().is_file():
        raise PointError(
            f"data.root: {root} is neither a folder nor a file of `flexhpc data prepare`"
        )


def _open_packed(data: Data) -> Source | None:
    """Open the packed file at the location of the section, or a matching one in the folders to
    search."""
    if data.seeded:
        return None
    key, where = data.location_key(), data.location
    if where is not None:
        path = Path(where).expanduser()
        if is_packed(path):
            packed = open_packed(path)
            if why := _misfit(packed.reading, data):
                raise PointError(f"data.{key}: {where} {why}")
            return _as_asked(packed.source, data)
    for place in roots(data.source, where):
        path = place / f"{data.source}.packed"
        if path.is_file():
            packed = open_packed(path)
            if not _misfit(packed.reading, data):
                return _as_asked(packed.source, data)
    return None


def _misfit(packed: dict[str, Any], data: Data) -> str | None:
    """Return why a file packed with these keys does not match the section; None if it does."""
    wanted = reading_of(data)
    if "colour" not in packed:
        wanted.pop("colour", None)
        if "side" not in packed:
            wanted.pop("side", None)
    for key in data.reading_keys():
        if packed.get(key) != wanted.get(key):
            mismatch = f"was packed with {key}: {packed[key]}" if key in packed else f"has no {key}"
            return f"{mismatch}, but the point says {wanted.get(key)}; prepare it anew"
    return None


def _as_asked(source: Source, data: Data) -> Source:
    """Return the source with its images resized and recoloured, unless they already are."""
    if not isinstance(data, Images):
        return source
    side, colour = data.side, data.colour
    if len(source.train.shape) == 1 or source.train.dtype != np.uint8:
        if side is not None or colour is not None:
            what = "vectors" if len(source.train.shape) == 1 else "images of float32"
            raise PointError(
                f"data.side and data.colour: {source.name} holds {what}; leave them out"
            )
        return source
    train = reshaped(source.train, side, colour)
    own_test = source.test  # do not capture the source, which may hold a second copy of all samples

    def test() -> Part | None:
        part = own_test()
        return reshaped(part, side, colour) if part is not None else None

    summary = source.summary if train is source.train else None
    return replace(source, train=train, test=test, summary=summary)
