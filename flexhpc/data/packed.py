"""Packed files: a data set in one file, which is memory-mapped in milliseconds.

A packed file is an uncompressed .npz file, which NumPy can load. Its first member is empty; the
name of this member identifies the format. ``header.json`` describes the data set. The zip format
stores a CRC-32 of every member, which :func:`verify_packed` verifies.
"""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from flexhpc.atomic import atomic_replacement, open_regular_file
from flexhpc.data.dataset import Array, Source, Split, Summary
from flexhpc.data.raw_files import convert_read_errors, open_array, read_array_blocks
from flexhpc.data.summary import compute_summary
from flexhpc.errors import PointError

MAGIC = "flexhpc packed data 002"
_KIND = "a file written by `flexhpc data prepare`"
_HEADER = "header.json"
_LOCAL_HEADER = 30
"""Size in bytes of the fixed-length part of a local file header in the zip format."""
_ALIGNMENT = 64
_BYTES_PER_READ = 2**22
Progress = Callable[[str, int, int], None]
"""Function that reports progress. Its arguments are the name of the current step, the amount done
and the total amount. Amounts are numbers of samples, or of bytes if checksums are verified."""


@dataclass(frozen=True, kw_only=True)
class PackedFile:
    """A data set in a packed file.

    Attributes:
        path: the file.
        keys: keys and values of the ``data`` section that determine how samples are read.
        source: the samples, memory-mapped and read-only.
        size: size of the file (bytes).
    """

    path: Path
    keys: dict[str, Any]
    source: Source
    size: int


class _Header(BaseModel):
    """Content of ``header.json`` in a packed file."""

    model_config = ConfigDict(strict=True)

    name: str
    reading: dict[str, Any]
    classes: Annotated[int, Field(ge=1, le=2**31)]
    fingerprint: str
    class_names: list[str] | None = None

    @model_validator(mode="after")
    def _check_class_names(self) -> Self:
        if self.class_names is not None and len(self.class_names) != self.classes:
            raise ValueError(f"{len(self.class_names)} class names, but {self.classes} classes")
        return self


def is_packed(path: Path) -> bool:
    """Return whether a path is a file that starts with the signature of packed files."""
    try:
        with open_regular_file(path) as file:
            start = file.read(_LOCAL_HEADER + len(MAGIC))
    except OSError:
        return False
    return start.startswith(b"PK\x03\x04") and start[_LOCAL_HEADER:] == MAGIC.encode()


def reject_unpacked_file(root: str | None) -> None:
    """Raise PointError if ``root`` is a file. Call this only if ``root`` is not a packed file."""
    if root is not None and Path(root).expanduser().is_file():
        raise PointError(f"data.root: {root} is neither a folder nor {_KIND}")


def open_packed(path: Path) -> PackedFile:
    """Open a packed file and memory-map its samples.

    Raises:
        PointError: the file is unreadable, truncated or not a packed file, or its header is
            damaged.
    """
    with (
        convert_read_errors(path, _KIND),
        open_regular_file(path) as file,
        zipfile.ZipFile(file) as archive,
    ):
        members = archive.infolist()
        if members[0].filename != MAGIC or any(member.compress_type for member in members):
            raise ValueError("unknown format")
        try:
            header = _Header.model_validate_json(archive.read(_HEADER))
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        arrays = {
            name: _memory_map(path, file, archive, name)
            for member in members
            if (name := member.filename.removesuffix(".npy")) != member.filename
        }
        train = _make_split(arrays["inputs"], arrays["labels"], header.classes)
        test = None
        if "test_inputs" in arrays:
            test = _make_split(arrays["test_inputs"], arrays["test_labels"], header.classes)
        statistics = {name: arrays[name] for name in ("mean", "deviation", "twins", "groups")}
        source = Source(
            name=f"{header.name} ({path})",
            classes=header.classes,
            train=train,
            open_test=lambda: test,
            coarse=arrays.get("coarse"),
            standardised_mask=arrays.get("scaled"),
            class_names=header.class_names,
            summary=Summary(fingerprint=header.fingerprint, **statistics),
        )
    return PackedFile(path=path, keys=header.reading, source=source, size=path.stat().st_size)


def verify_packed(path: Path, progress: Progress = lambda *_: None) -> PackedFile:
    """Open a packed file and verify the checksums of all members.

    Raises:
        PointError: as in :func:`open_packed`, or if a checksum does not match.
    """
    with (
        convert_read_errors(path, _KIND),
        open_regular_file(path) as file,
        zipfile.ZipFile(file) as archive,
    ):
        size, done = path.stat().st_size, 0
        for member in archive.infolist():
            with archive.open(member) as content:
                while block := content.read(_BYTES_PER_READ):
                    done += len(block)
                    progress("checking", done, size)
    return open_packed(path)


def write_packed(
    source: Source, keys: dict[str, Any], out: Path, progress: Progress = lambda *_: None
) -> PackedFile:
    """Write a data set to the packed file ``out``; replace an existing file atomically.

    Samples are read and written in blocks, so they need not fit into memory. ``keys`` are stored
    in the header; see :class:`PackedFile`.

    Raises:
        PointError: a sample cannot be read, or samples are text or have token labels.
        OSError: the file cannot be written, for example because the disk is full.
    """
    if source.token_labels is not None or keys.get("source") == "text":
        raise PointError(f"{source.name}: text and samples with token labels cannot be packed")
    train, test = source.train, source.open_test()
    with atomic_replacement(out) as unfinished:
        with zipfile.ZipFile(unfinished, "w") as archive:
            archive.writestr(zipfile.ZipInfo(MAGIC), b"")
            _write_split(archive, "", train, "training samples", progress)
            if test is not None:
                _write_split(archive, "test_", test, "test samples", progress)

        def stored_blocks() -> Iterator[Array]:
            # without mmap, whose pages would count as memory of the process
            stored = read_array_blocks(unfinished, "inputs")
            return _iterate_with_progress(stored, "computing statistics", len(train), progress)

        summary = compute_summary(replace(train, blocks=stored_blocks), source.classes)
        with zipfile.ZipFile(unfinished, "a") as archive:
            for name in ("mean", "deviation", "twins", "groups"):
                _write_array(archive, name, getattr(summary, name))
            for name, array in (("coarse", source.coarse), ("scaled", source.standardised_mask)):
                if array is not None:
                    _write_array(archive, name, array)
            header = {
                "name": source.name, "reading": keys, "classes": source.classes,
                "fingerprint": summary.fingerprint, "class_names": source.class_names,
            }  # fmt: skip
            archive.writestr(zipfile.ZipInfo(_HEADER), json.dumps(header))
    return open_packed(out)


def _write_split(
    archive: zipfile.ZipFile, prefix: str, split: Split, step_name: str, progress: Progress
) -> None:
    _write_array(archive, f"{prefix}labels", split.labels)
    shape = (len(split), *split.shape)
    blocks = _iterate_with_progress(split.blocks(), step_name, len(split), progress)
    _write_blocks(archive, f"{prefix}inputs", split.dtype, shape, blocks)


def _iterate_with_progress(
    blocks: Iterable[Array], step_name: str, total: int, progress: Progress
) -> Iterator[Array]:
    """Yield the blocks; call ``progress`` after each block."""
    done = 0
    for block in blocks:
        yield block
        done += len(block)
        progress(step_name, done, total)


def _write_array(archive: zipfile.ZipFile, name: str, array: Array) -> None:
    _write_blocks(archive, name, array.dtype, array.shape, [array])


def _write_blocks(
    archive: zipfile.ZipFile, name: str, dtype: np.dtype[Any], shape: tuple[int, ...],
    blocks: Iterable[Array],
) -> None:  # fmt: skip
    """Append the array in ``blocks`` to the archive; align its values for memory-mapping."""
    little = dtype.newbyteorder("<")
    member = zipfile.ZipInfo(f"{name}.npy")
    assert archive.fp is not None
    zip64, extra = 20, 4  # bytes: zip64 field, header of the padding field
    start = archive.fp.tell() + _LOCAL_HEADER + len(member.filename) + zip64 + extra
    padding = -start % _ALIGNMENT
    member.extra = struct.pack(f"<HH{padding}x", 0xFFFF, padding)
    with archive.open(member, "w", force_zip64=True) as file:
        header = {"descr": little.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_2_0(file, header)
        for block in blocks:
            file.write(np.ascontiguousarray(block, dtype=little).data)


def _memory_map(path: Path, file: BinaryIO, archive: zipfile.ZipFile, name: str) -> Array:
    values, shape, dtype = open_array(archive, name)
    if 0 in shape:
        return np.empty(shape, dtype)
    local_header = archive.getinfo(f"{name}.npy").header_offset
    file.seek(local_header + _LOCAL_HEADER - 4)
    lengths = struct.unpack("<HH", file.read(4))
    offset = local_header + _LOCAL_HEADER + sum(lengths) + values.tell()
    return np.asarray(np.memmap(path, dtype, "r", offset, shape))


def _make_split(inputs: Array, labels: Array, classes: int) -> Split:
    """Create a split; raise ValueError unless the labels are integers from 0 to ``classes`` - 1."""
    if labels.shape != (len(inputs),) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"labels must be integers of shape ({len(inputs)},), not {labels.dtype} of shape "
            f"{labels.shape}"
        )
    if not len(inputs) or labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels must not be empty, and must be from 0 to {classes - 1}")
    return Split.from_arrays(inputs, labels)
