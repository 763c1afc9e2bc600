"""A file format for a whole data set, opened by memory-mapping in milliseconds.

Layout, little-endian: 24 bytes that identify the format, the length of the header (uint64), its
SHA-256 (32 bytes), and the header (JSON); then the arrays listed in the header, each at a multiple
of 4,096 bytes. The header contains the SHA-256 of everything after it. A damaged header is
therefore detected when the file is opened, and damaged content by :func:`check`.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from flexhpc.atomic import open_regular
from flexhpc.data.dataset import Array, Part, Source, Summary
from flexhpc.errors import PointError

MAGIC = b"flexhpc packed data 001\n"
PREFIX = struct.Struct(f"<{len(MAGIC)}sQ32s")
ALIGNMENT = 4_096
_BYTES_AT_ONCE = 2**22
Progress = Callable[[str, int, int], None]
"""Called with the name of the current step, the amount done and the total amount."""


@dataclass(frozen=True, kw_only=True)
class Packed:
    """An opened packed file.

    Attributes:
        path: the file.
        reading: the keys of the ``data`` section that determined which values were read.
        source: the samples, memory-mapped and read-only.
        size: size of the file (bytes).
        checksum: SHA-256 of its content, hexadecimal.
        start: offset of the content (bytes).
    """

    path: Path
    reading: dict[str, Any]
    source: Source
    size: int
    checksum: str
    start: int


def is_packed(path: Path) -> bool:
    """Return whether a path is a file that starts with the magic bytes of a packed file."""
    try:
        with open_regular(path) as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def open_packed(path: Path) -> Packed:
    """Open a packed file.

    Raises:
        PointError: the file is unreadable, has another format or is truncated, or its header is
            damaged.
    """
    header, start = _read_header(path)
    try:
        arrays = {name: _mapped(path, start, *where) for name, where in header.arrays.items()}
        for part in ("", "test_") if "test_inputs" in arrays else ("",):
            _check_labels(arrays[f"{part}labels"], len(arrays[f"{part}inputs"]), header.classes)
        return Packed(
            path=path,
            reading=header.reading,
            source=_source(path, header, arrays),
            size=header.size,
            checksum=header.checksum,
            start=start,
        )
    except (OSError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise PointError(f"{path}: cannot be mapped: {error}; prepare it anew") from None


def check(path: Path, progress: Progress = lambda *_: None) -> Packed:
    """Open a packed file and verify all of its content.

    Raises:
        PointError: as in :func:`open_packed`, or if the checksum does not match.
    """
    header, start = _read_header(path)
    if content_checksum(path, start, progress) != header.checksum:
        raise PointError(f"{path}: is damaged: its checksum is another; prepare or copy it anew")
    return open_packed(path)


def content_checksum(path: Path, start: int, progress: Progress) -> str:
    """Return the SHA-256 of a file from offset ``start`` to the end, hexadecimal."""
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(start)
        while content := file.read(_BYTES_AT_ONCE):
            digest.update(content)
            progress("checking", file.tell(), size)
    return digest.hexdigest()


class _Header(BaseModel):
    """Header of a packed file. Anyone can compute a valid checksum, so the types are validated as
    well."""

    model_config = ConfigDict(strict=True)

    name: str
    size: int
    checksum: str
    reading: dict[str, Any]
    classes: Annotated[int, Field(ge=1, le=2**31)]
    fingerprint: str
    arrays: dict[str, tuple[str, list[Annotated[int, Field(ge=0, lt=2**50)]], int]]
    class_names: list[str] | None = None

    @model_validator(mode="after")
    def _a_name_each(self) -> Self:
        if self.class_names is not None and len(self.class_names) != self.classes:
            raise ValueError(f"{len(self.class_names)} names of {self.classes} classes")
        return self


def _read_header(path: Path) -> tuple[_Header, int]:
    """Return the verified header and the offset of the content; the size of the file must match."""
    try:
        with open_regular(path) as file:
            prefix = file.read(PREFIX.size)
            if prefix[: len(MAGIC)] != MAGIC:
                raise PointError(f"{path}: is no file of `flexhpc data prepare`")
            if len(prefix) < PREFIX.size:
                raise PointError(f"{path}: is cut short; prepare or copy it anew")
            _, length, digest = PREFIX.unpack(prefix)
            text = file.read(min(length, path.stat().st_size))
    except OSError as error:
        raise PointError(f"{path}: cannot be read: {error.strerror}") from None
    if hashlib.sha256(text).digest() != digest:
        raise PointError(f"{path}: its header is damaged or cut short; prepare or copy it anew")
    try:
        header = _Header.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        what = f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}"
        raise PointError(f"{path}: its header makes no sense ({what}); prepare it anew") from None
    if (size := path.stat().st_size) != header.size:
        raise PointError(
            f"{path}: is cut short or grown: {size} bytes, but it was written with "
            f"{header.size}; prepare or copy it anew"
        )
    return header, PREFIX.size + length


def _mapped(path: Path, start: int, dtype: str, shape: list[int], offset: int) -> Array:
    kind = np.dtype(dtype)
    if kind.kind not in "biuf" or kind.fields or kind.subdtype or offset < start or len(shape) > 8:
        raise ValueError(f"{dtype} {shape} at {offset} is no array of numbers")
    if 0 in shape:
        return np.empty(shape, kind)
    mapped = np.memmap(path, kind, mode="r", offset=offset, shape=tuple(shape))
    return np.asarray(mapped)


def _check_labels(labels: Array, count: int, classes: int) -> None:
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise ValueError(f"labels are {labels.dtype} {labels.shape}")
    if not count or labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels are not from 0 to {classes - 1}")


def _source(path: Path, header: _Header, arrays: dict[str, Array]) -> Source:
    def test() -> Part | None:
        if "test_inputs" not in arrays:
            return None
        return Part.of(arrays["test_inputs"], arrays["test_labels"])

    return Source(
        name=f"{header.name} ({path})",
        classes=header.classes,
        train=Part.of(arrays["inputs"], arrays["labels"]),
        test=test,
        coarse=arrays.get("coarse"),
        scaled=arrays.get("scaled"),
        class_names=header.class_names,
        summary=Summary(
            fingerprint=header.fingerprint,
            mean=arrays["mean"],
            deviation=arrays["deviation"],
            twins=arrays["twins"],
            groups=arrays["groups"],
        ),
    )
