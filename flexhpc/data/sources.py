"""From the ``data`` section of a point to its source: a packed file, or the files of the set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from flexhpc.data.cifar import open_cifar
from flexhpc.data.cifar5m import open_cifar5m
from flexhpc.data.dataset import Part, Source
from flexhpc.data.idx import open_mnist
from flexhpc.data.image_folder import open_image_folder
from flexhpc.data.images import reshaped
from flexhpc.data.packed import is_packed, open_packed
from flexhpc.data.places import roots
from flexhpc.data.synthetic import make_gaussian, open_digits
from flexhpc.data.table import open_table
from flexhpc.data.uci import open_known_table
from flexhpc.errors import PointError
from flexhpc.spec.sections.data import (
    Data,
    Gaussian,
    ImageFolder,
    Images,
    ImageSet,
    KnownTable,
    Table,
)

_READING = ("source", "side", "colour", "target", "categorical", "drop")
"""Keys that decide which values are read, apart from where."""


def reading_of(data: Data) -> dict[str, Any]:
    """Return the keys of a section that decide which values are read."""
    return {key: value for key in _READING if (value := getattr(data, key, None)) is not None}


def where_of(data: Data) -> tuple[str, str | None]:
    """Return the key that says where the data lies, and its value."""
    key = "path" if isinstance(data, Table) else "root"
    return key, getattr(data, key, None)


def open_source(data: Data, seed: int) -> Source:
    """Open the source of a point.

    Raises:
        PointError: the data is missing, unreadable, of the wrong shape, or packed otherwise.
    """
    return _open_packed(data) or open_files(data, seed)


def open_files(data: Data, seed: int) -> Source:
    """Open the source of a point from the files of the set, not from a packed one.

    Raises:
        PointError: the data is missing, unreadable or of the wrong shape.
    """
    if isinstance(data, Gaussian):
        return make_gaussian(data.dims, data.classes, data.size, seed)
    if isinstance(data, Table):
        return open_table(data)
    if isinstance(data, KnownTable):
        return open_known_table(data.source, data.root)
    if isinstance(data, ImageFolder):
        _no_file(data.root)
        return _as_asked(open_image_folder(data.root, data.side), data)
    if isinstance(data, ImageSet):
        _no_file(data.root)
        openers = {"cifar5m": open_cifar5m, "cifar10": open_cifar, "cifar100": open_cifar}
        return _as_asked(openers.get(data.source, open_mnist)(data.source, data.root), data)
    return _as_asked(open_digits(), data)


def _no_file(root: str | None) -> None:
    if root is not None and Path(root).expanduser().is_file():
        raise PointError(
            f"data.root: {root} is neither a folder nor a file of `flexhpc data prepare`"
        )


def _open_packed(data: Data) -> Source | None:
    """Open the packed file that the section names, or one that fits in its folder or the usual."""
    if isinstance(data, Gaussian):
        return None
    key, where = where_of(data)
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
    """Return why a file that was packed with these keys does not give what is asked for."""
    wanted = reading_of(data)
    if "colour" not in packed:
        wanted.pop("colour", None)
        if "side" not in packed:
            wanted.pop("side", None)
    for key in _READING:
        if packed.get(key) != wanted.get(key):
            said = f"was packed with {key}: {packed[key]}" if key in packed else f"has no {key}"
            return f"{said}, but the point says {wanted.get(key)}; prepare it anew"
    return None


def _as_asked(source: Source, data: Data) -> Source:
    """Return the source with its images resized and coloured, where they are not yet."""
    if not isinstance(data, Images):
        return source
    side, colour = data.side, data.colour
    train = reshaped(source.train, side, colour)
    own_test = source.test  # not the source: it may hold all samples once more

    def test() -> Part | None:
        part = own_test()
        return reshaped(part, side, colour) if part is not None else None

    summary = source.summary if train is source.train else None
    return replace(source, train=train, test=test, summary=summary)
