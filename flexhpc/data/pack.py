"""Write a data set into one packed file; see :mod:`flexhpc.data.packed` for the format."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from flexhpc.atomic import replacing
from flexhpc.data.dataset import Array, Part, Source, rows_at_once
from flexhpc.data.packed import (
    ALIGNMENT,
    MAGIC,
    PREFIX,
    Packed,
    Progress,
    content_checksum,
    open_packed,
)
from flexhpc.data.summary import summary_of

_HEADER_ROOM = 4_096
_CHECKSUM_ROOM = 64


def pack(
    source: Source, reading: dict[str, Any], out: Path, progress: Progress = lambda *_: None
) -> Packed:
    """Write a source into ``out``; the file is replaced atomically.

    Samples are read and written in blocks, so the set may be larger than memory.

    Raises:
        PointError: a sample cannot be read.
        OSError: the disk is full or the folder cannot be written.
    """
    with replacing(out) as part, part.open("w+b") as file:
        _write(file, part, source, reading, progress)
    return open_packed(out)


def _write(
    file: BinaryIO, path: Path, source: Source, reading: dict[str, Any], progress: Progress
) -> None:
    header: dict[str, Any] = {"reading": reading, "name": source.name, "classes": source.classes}
    if source.class_names is not None:
        header["class_names"] = list(source.class_names)
    room = len(json.dumps(header)) + _HEADER_ROOM
    start = -(-(PREFIX.size + room) // ALIGNMENT) * ALIGNMENT
    file.seek(start)
    writer = _Arrays(file)
    for name in ("coarse", "scaled"):
        if (array := getattr(source, name)) is not None:
            writer.add(name, array)
    train = source.train
    writer.add("labels", train.labels)
    writer.add_part("inputs", train, partial(progress, "training samples"))
    if (test := source.test()) is not None:
        writer.add("test_labels", test.labels)
        writer.add_part("test_inputs", test, partial(progress, "test samples"))
    file.flush()
    blocks = partial(_blocks, path, train, writer.places["inputs"][2], progress)
    summary = summary_of(blocks, train.dtype, train.shape, train.labels, source.classes)
    for name in ("mean", "deviation", "twins", "groups"):
        writer.add(name, getattr(summary, name))
    file.flush()
    header |= {"fingerprint": summary.fingerprint, "arrays": writer.places, "size": file.tell()}
    header["checksum"] = content_checksum(path, start, progress)
    text = json.dumps(header).ljust(start - PREFIX.size).encode()
    file.seek(0)
    file.write(PREFIX.pack(MAGIC, len(text), hashlib.sha256(text).digest()) + text)
    file.flush()


class _Arrays:
    """Appends arrays to a file; ``places`` contains dtype, shape and offset of each."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.places: dict[str, tuple[str, tuple[int, ...], int]] = {}

    def add(self, name: str, array: Array) -> None:
        self._append(name, array.dtype, array.shape, [array])

    def add_part(self, name: str, part: Part, progress: partial[None]) -> None:
        shape = (len(part.labels), *part.shape)

        def blocks() -> Iterator[Array]:
            done = 0
            for block in part.blocks():
                yield block
                done += len(block)
                progress(done, shape[0])

        self._append(name, part.dtype, shape, blocks())

    def _append(
        self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...], blocks: Iterable[Array]
    ) -> None:
        little = dtype.newbyteorder("<")
        at = self.file.tell()
        self.file.write(bytes(-at % ALIGNMENT))
        self.places[name] = (little.str, shape, self.file.tell())
        for block in blocks:
            self.file.write(np.ascontiguousarray(block, dtype=little).data)


def _blocks(path: Path, part: Part, offset: int, progress: Progress) -> Iterator[Array]:
    """Yield the written samples in blocks, as :func:`flexhpc.data.dataset.in_blocks` does.

    The file is read, not memory-mapped: mapped pages would count as memory of this process.
    """
    step, count = rows_at_once(part.shape), len(part.labels)
    with path.open("rb") as file:
        file.seek(offset)
        for at in range(0, count, step):
            rows = min(step, count - at)
            values = np.fromfile(file, part.dtype, rows * int(np.prod(part.shape)))
            yield values.reshape(rows, *part.shape)
            progress("summing up", at + rows, count)
