"""Read and write point files: HDF5 files with a point's probes and their fit masks.

Every change is made on a copy that then atomically replaces the file. After a crash or on a full
disk, and for a concurrent reader, the file contains all finished probes or all but the newest, and
is never corrupt. Files are small (two bits per sample and probe, plus one byte if forgetting is
counted), so the copy takes milliseconds, which is negligible compared with a training.

Content is not trusted when it is read. Checks are, in this order: the checksum
(:mod:`flexhpc.store.seal`), the HDF5 structure (:mod:`flexhpc.store.structure`) and the types of
values (:mod:`flexhpc.store.typed`).
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5s, h5t
from numpy.typing import NDArray

from flexhpc.atomic import replacing
from flexhpc.errors import PointError, one_line
from flexhpc.store import seal, typed
from flexhpc.store.bits import pack
from flexhpc.store.record import Header, PointRecord, ProbeRecord, ProbeSummary
from flexhpc.store.seal import CorruptFile
from flexhpc.store.structure import AS_TEXT, Tree, tree

Permitted = Callable[[], bool]

SCHEMA = 1
"""Version of the file format."""
_POINT = re.compile("[0-9a-f]{16}")
_READING = "reading."
_MACHINE = "machine."
_TUNED = "tuned."
_PLAIN = (
    "n", "repeat", "verdict", "n_errors", "train_accuracy", "loss", "epochs", "steps", "cost",
    "seconds", "finished", "rejected", "arm",
)  # fmt: skip
_BROKEN = (
    OSError, KeyError, ValueError, TypeError, RuntimeError, OverflowError, AttributeError,
    RecursionError,
)  # fmt: skip
"""Exceptions that reading a corrupt file raises, in h5py or in code that expects other types."""
_PACKED_FROM = 4096
"""Size from which an array is compressed (bytes); for smaller ones the chunk index costs more."""
_LEAST_MEMORY, _COPIES = 2**24, 4
"""Memory that a change needs: fixed part (bytes), and number of copies of the file in memory."""
_PLAIN_TYPES = {
    plain: (kind, h5t.py_create(kind, logical=True), h5t.py_create(kind))
    for plain, kind in (
        (int, np.dtype(np.int64)), (float, np.dtype(np.float64)), (str, h5py.string_dtype()),
    )
}  # fmt: skip
"""For each Python type: NumPy dtype, HDF5 type in the file, and HDF5 type in memory."""


def create(path: Path, header: Header) -> None:
    """Write a new point file without probes.

    Raises:
        PointError: the file cannot be written.
    """
    with _replacing(path, copy=False) as file:
        _write_values(file, vars(header))
        _write_text(file, vars(header))
        file.create_group("probes")


def append(path: Path, probe: ProbeRecord, permitted: Permitted = lambda: True) -> None:
    """Append one finished probe atomically.

    Args:
        path: point file.
        probe: probe to append.
        permitted: called immediately before the final rename; if it returns False, the file is not
            changed.

    Raises:
        PointError: the file cannot be read or written, for example because the disk is full.
    """
    with _replacing(path, copy=True, permitted=permitted) as file:
        group = file["probes"].create_group(f"{len(file['probes']):04d}")
        attributes = {key: getattr(probe, key) for key in _PLAIN}
        for prefix, values in (
            ("seed_", probe.seeds), (_READING, probe.readings), (_TUNED, probe.tuned),
            (_MACHINE, probe.machine),
        ):  # fmt: skip
            attributes |= {prefix + name: value for name, value in values.items()}
        _write_values(group, attributes)
        _write_text(group, attributes)
        n_total = int(file.attrs["n_total"])
        arrays: dict[str, NDArray[Any]] = {
            "subset": pack(probe.subset, n_total),
            "fit": pack(probe.subset[probe.fitted], n_total),
            "loss_curve": probe.loss_curve,
            "error_curve": probe.error_curve,
        }
        if probe.unseen is not None and probe.unseen_fitted is not None:
            arrays["unseen"] = pack(probe.unseen, n_total)
            arrays["unseen_fit"] = pack(probe.unseen[probe.unseen_fitted], n_total)
        if probe.forgotten is not None:
            least = np.min_scalar_type(-max(int(probe.forgotten.max()), 1) - 1)
            arrays["forgotten"] = probe.forgotten.astype(least)
        for name, array in arrays.items():
            packed = {"compression": "gzip", "compression_opts": 1}
            group.create_dataset(name, data=array, **packed if array.nbytes >= _PACKED_FROM else {})


def finish(path: Path, estimate: Mapping[str, Any], permitted: Permitted = lambda: True) -> None:
    """Write the final estimate atomically; fields that are None are omitted.

    Args:
        path: point file.
        estimate: fields of the estimate.
        permitted: see :func:`append`.

    Raises:
        PointError: the file cannot be read or written.
    """
    _write_group(path, "estimate", estimate, permitted)


def evaluated(
    path: Path, evaluation: Mapping[str, Any], permitted: Permitted = lambda: True
) -> None:
    """Write the evaluation of generalization atomically.

    Args:
        path: point file.
        evaluation: eval metrics and settings by name.
        permitted: see :func:`append`.

    Raises:
        PointError: the file cannot be read or written.
    """
    _write_group(path, "evaluation", evaluation, permitted)


def _write_group(path: Path, name: str, values: Mapping[str, Any], permitted: Permitted) -> None:
    with _replacing(path, copy=True, permitted=permitted) as file:
        if name in file:
            del file[name]
        group = file.create_group(name)
        _write_values(group, values)
        _write_text(group, values)


def _write_values(group: h5py.Group, values: Mapping[str, Any]) -> None:
    """Write plain values as attributes and mappings as groups; None is omitted."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            _write_values(group.create_group(key), value)
        elif type(value) in _PLAIN_TYPES and not _is_too_large(value):
            _write_new(group, key, value)
        elif value is not None:
            group.attrs[key] = value


def _is_too_large(value: float | str) -> bool:
    return type(value) is int and not -(2**63) <= value < 2**63


def _write_new(group: h5py.Group, key: str, value: float | str) -> None:
    """Create a scalar attribute that does not exist yet.

    Same result as ``group.attrs[key] = value``, but faster: ``attrs`` infers the type on every
    assignment, and a probe has about 40 attributes.
    """
    kind, stored, in_memory = _PLAIN_TYPES[type(value)]
    attribute = h5a.create(group.id, key.encode(), stored, h5s.create(h5s.SCALAR))
    attribute.write(np.array(value, kind), mtype=in_memory)


def _write_text(group: h5py.Group, values: Mapping[str, Any]) -> None:
    """Store a group's attributes also as one JSON string, which is read ten times faster.

    Must not be used for groups whose attribute or group names are data: older versions of flexhpc
    would read the string as data.
    """
    plain = {k: v for k, v in values.items() if v is not None and not isinstance(v, Mapping)}
    group.attrs[AS_TEXT] = json.dumps(plain, default=_plain, sort_keys=True)


def _plain(value: Any) -> Any:
    return value.tolist()  # a NumPy array or scalar


def _nested(group: Tree) -> dict[str, Any]:
    return {**group.attributes, **{key: _nested(inner) for key, inner in group.groups.items()}}


def read(path: Path, known: PointRecord | None = None) -> PointRecord | None:
    """Read a point file; return None if it does not exist.

    Args:
        path: point file.
        known: result of an earlier read; its probes are not read again.

    Raises:
        PointError: the file is corrupt, or was written by another version of flexhpc.
    """
    if not path.exists():
        return None
    with reading(path) as file:
        header = Header(**typed.header(file.attributes))
        groups = probe_groups(file)
        probes = _still_there(known.probes if known else [], list(groups.values()))
        for name, group in list(groups.items())[len(probes) :]:
            probes.append(_summary(group, name, header.n_total))
        return PointRecord(
            header=header,
            probes=probes,
            estimate=_estimate(file),
            evaluation=_evaluation(file),
        )


def probe_groups(file: Tree) -> dict[str, Tree]:
    """Return the groups of the probes, in the order in which the probes were appended.

    Raises:
        CorruptFile: a probe is not a group.
    """
    probes = file.groups["probes"]
    if probes.arrays:
        raise CorruptFile(f"probe {min(probes.arrays)} is no group")
    return {name: probes.groups[name] for name in sorted(probes.groups, key=int)}


def _still_there(known: Sequence[ProbeSummary], groups: Sequence[Tree]) -> list[ProbeSummary]:
    """Return the known probes if the file extends them, or none if the file was replaced."""
    if not 0 < len(known) <= len(groups):
        return []
    last = groups[len(known) - 1].attributes["finished"]
    return list(known) if last == known[-1].finished else []


def _estimate(file: Tree) -> dict[str, Any] | None:
    found = file.group("estimate")
    if found is None:
        return None
    absent = dict.fromkeys(("emc_hi", "largest_fit", "smallest_fail"))
    values = {**absent, **_nested(found)}
    for one in values.get("by_eps", {}).values():
        one.setdefault("emc_hi", None)
    return typed.estimate(values)


def _evaluation(file: Tree) -> dict[str, Any] | None:
    found = file.group("evaluation")
    if found is None:
        return None
    return typed.evaluation(_nested(found))


@contextlib.contextmanager
def reading(path: Path) -> Iterator[Tree]:
    """Open a point file and yield its content.

    If the file name is a point id, the stored id must match it.

    Raises:
        PointError: the file is missing, corrupt, has unexpected content, or was written by
            another version of flexhpc; one clear message per cause.
    """
    with _readable(path), h5py.File(h5py.h5f.open_file_image(_content(path))) as file:
        _check_schema(file, path)
        held = tree(file)
        point = str(held.attributes["point_id"])
        if _POINT.fullmatch(path.stem) and point != path.stem:
            raise CorruptFile(f"belongs to point {point[:40]!r}")
        yield held


def _check_schema(file: h5py.File, path: Path) -> None:
    """Raise PointError if a file was written by another version of flexhpc."""
    if (schema := int(file.attrs["schema"])) != SCHEMA:
        raise PointError(
            f"{path}: unsupported schema ({schema}); this flexhpc reads schema {SCHEMA}"
        )


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Convert any exception raised while reading a file to a PointError with one message."""
    if not path.exists():
        raise PointError(f"{path}: there is no such file: the point was not measured yet")
    try:
        yield
    except MemoryError:
        raise PointError(f"{path}: cannot be read: out of memory") from None
    except _BROKEN as error:
        known = isinstance(error, CorruptFile)  # HDF5's own messages do not help a user
        raise corrupt(path, one_line(error) if known else "damaged HDF5 structure") from None


def _content(path: Path) -> bytes:
    try:
        return seal.read_sealed(path)
    except OSError as error:
        raise PointError(f"{path}: cannot be read: {error.strerror or error}") from None


def corrupt(path: Path, problem: str) -> PointError:
    """Return the error for a corrupt point file, with the instruction how to recover."""
    return PointError(
        f"{path}: is corrupt ({problem}); move it away, and the same sweep command measures the "
        "point again"
    )


def _summary(group: Tree, name: str, n_total: int) -> ProbeSummary:
    attributes = group.attributes

    def prefixed(prefix: str) -> dict[str, Any]:
        size = len(prefix)
        return {k[size:]: v for k, v in attributes.items() if k.startswith(prefix)}

    values = {
        **{key: attributes[key] for key in _PLAIN},
        "seeds": prefixed("seed_"),
        "readings": prefixed(_READING),
        "machine": prefixed(_MACHINE),
        "tuned": prefixed(_TUNED),
    }
    return ProbeSummary(
        **typed.probe(values, name, n_total), loss_curve=group.arrays["loss_curve"]()
    )


@contextlib.contextmanager
def _replacing(
    path: Path, *, copy: bool, permitted: Permitted = lambda: True
) -> Iterator[h5py.File]:
    """Open a copy of ``path`` (or a new file) for writing, and replace ``path`` at the end.

    The copy is in memory, because HDF5 does not handle disk errors during a write safely.
    """
    try:
        content = _copied(path) if copy else BytesIO()
        _check_memory(content.seek(0, os.SEEK_END))
        with h5py.File(content, "r+") if copy else _fresh(content) as file:
            if copy:
                _check_schema(file, path)
            file.attrs["schema"] = SCHEMA
            yield file
        with replacing(path, permitted=permitted) as part:
            part.write_bytes(seal.sealed(content.getvalue()))
    except (OSError, RuntimeError, ValueError, MemoryError) as error:
        what = "out of memory" if isinstance(error, MemoryError) else one_line(error)
        raise PointError(f"{path}: cannot be written, what it held is untouched: {what}") from None


def _check_memory(size: int) -> None:
    """Raise MemoryError if there is not enough memory to change a file of ``size`` bytes.

    Without this check, HDF5 may crash the process when an allocation fails. The memory limit of a
    control group is not detected; exceeding it kills the process.
    """
    try:
        size = _LEAST_MEMORY + _COPIES * size
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE).close()  # reserves address space only
    except OSError:
        raise MemoryError from None


def _fresh(content: BytesIO) -> h5py.File:
    """Create a new HDF5 file with space for the checksum."""
    return h5py.File(content, "w", userblock_size=seal.SIZE)


def _copied(path: Path) -> BytesIO:
    """Return the content of a file whose checksum matches."""
    with _readable(path):
        return BytesIO(_content(path))
