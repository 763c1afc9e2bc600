"""Read and write point files: HDF5 files with a point's probes and their fit masks.

Every change is made on a copy that then atomically replaces the file. A crash, a full disk or a
concurrent reader therefore never results in a corrupt file; at most the newest probe is missing.
The copy takes milliseconds, which is negligible compared with a training run, because files are
small: the masks of a probe need two bits per sample of the training set, or four bits with
``record.unseen``. With ``record.forgetting``, a probe usually needs one more byte per sample of its
subset.

A file whose checksum (:mod:`flexhpc.store.checksum`) matches was written by this module, so its
content is not validated again. Each group stores its fields twice: as JSON, which this module
reads, and as attributes for other programs.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from flexhpc.atomic import atomic_replacement
from flexhpc.errors import PointError, one_line_message
from flexhpc.search import Estimate
from flexhpc.store import checksum
from flexhpc.store.bits import pack_mask
from flexhpc.store.checksum import CorruptFile
from flexhpc.store.record import Header, PointRecord, ProbeRecord, ProbeSummary

IsPermitted = Callable[[], bool]
"""Called immediately before the final rename; if it returns False, the file is not changed."""

SCHEMA = 1
"""Version of the file format."""
JSON_ATTRIBUTE = "json"
"""Attribute with all fields of a group as one JSON object. It saves time, because HDF5 takes about
40 microseconds to read each attribute."""
_POINT_ID = re.compile("[0-9a-f]{16}")
_PREFIXES = {"seeds": "seed_", "metrics": "metric."}
"""Name of a field that is a mapping -> prefix of the attributes that store its items. The default
prefix is the name of the field and a dot."""
_MIN_COMPRESSED_BYTES = 4096
"""Size from which arrays are compressed (bytes). For smaller arrays, HDF5's chunk index takes more
space than compression saves."""
_FIXED_MEMORY, _MEMORY_COPIES = 2**24, 4
"""Memory required to change a file: ``_FIXED_MEMORY`` bytes plus ``_MEMORY_COPIES`` times
the size of the file."""


def create_point_file(path: Path, header: Header) -> None:
    """Write a new point file without probes.

    Raises:
        PointError: the file cannot be written.
    """
    with _open_replacement(path, copy=False) as file:
        file.attrs["schema"] = SCHEMA
        _write_fields(file, asdict(header))
        file.create_group("probes")


def append_probe(path: Path, probe: ProbeRecord, is_permitted: IsPermitted = lambda: True) -> None:
    """Append one finished probe atomically, and remove the final estimate, which is now outdated.

    Args:
        is_permitted: see ``IsPermitted``.

    Raises:
        PointError: the file cannot be read or written, for example because the disk is full.
    """
    with _open_replacement(path, copy=True, is_permitted=is_permitted) as file:
        if "estimate" in file:
            del file["estimate"]
        group = file["probes"].create_group(f"{len(file['probes']):04d}")
        _write_fields(group, {key: getattr(probe, key) for key in _SUMMARY})
        n_total = int(file.attrs["n_total"])
        arrays: dict[str, NDArray[Any]] = {
            "subset": pack_mask(probe.subset, n_total),
            "fit": pack_mask(probe.subset[probe.fitted], n_total),
            "loss_curve": probe.loss_curve,
            "error_curve": probe.error_curve,
        }
        if probe.unseen is not None and probe.unseen_fitted is not None:
            arrays["unseen"] = pack_mask(probe.unseen, n_total)
            arrays["unseen_fit"] = pack_mask(probe.unseen[probe.unseen_fitted], n_total)
        if probe.forgotten is not None:
            smallest_dtype = np.min_scalar_type(-max(int(probe.forgotten.max()), 1) - 1)
            arrays["forgotten"] = probe.forgotten.astype(smallest_dtype)
        for name, array in arrays.items():
            packed = {"compression": "gzip", "compression_opts": 1}
            group.create_dataset(
                name, data=array, **packed if array.nbytes >= _MIN_COMPRESSED_BYTES else {}
            )


_SUMMARY = [field.name for field in fields(ProbeSummary)]


def write_estimate(
    path: Path, estimate: Estimate, is_permitted: IsPermitted = lambda: True
) -> None:
    """Write the final estimate atomically.

    Raises:
        PointError: the file cannot be read or written.
    """
    with _open_replacement(path, copy=True, is_permitted=is_permitted) as file:
        _replace_group(file, "estimate", asdict(estimate))
        _replace_group(file, f"estimates/{len(file['probes']):04d}", asdict(estimate))


def write_evaluation(
    path: Path, evaluation: Mapping[str, Any], is_permitted: IsPermitted = lambda: True
) -> None:
    """Write the result of an evaluation atomically.

    Raises:
        PointError: the file cannot be read or written.
    """
    with _open_replacement(path, copy=True, is_permitted=is_permitted) as file:
        _replace_group(file, "evaluation", evaluation)


def _replace_group(file: h5py.File, name: str, values: Mapping[str, Any]) -> None:
    if name in file:
        del file[name]
    _write_fields(file.create_group(name), values)


def _write_fields(group: h5py.Group, values: Mapping[str, Any]) -> None:
    """Write ``values`` to a group as JSON and as attributes; a value of None gets no attribute."""
    text = json.dumps(values, default=lambda array: array.tolist(), sort_keys=True)
    group.attrs[JSON_ATTRIBUTE] = text
    for key, value in _flat_items(values):
        group.attrs[key] = value


def _flat_items(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat_items(value, prefix + _PREFIXES.get(key, f"{key}."))
        elif value is not None:
            yield prefix + key, value


def read_point_file(path: Path, previous: PointRecord | None = None) -> PointRecord | None:
    """Read a point file; return None if it does not exist.

    Args:
        previous: result of an earlier read. If the file still starts with its probes, they are not
            read again.

    Raises:
        PointError: the file cannot be read or is corrupt, belongs to another point, or was written
            by another version of flexhpc.
    """
    if not path.exists():
        return None
    with open_point_file(path) as file:
        groups = probe_groups(file)
        probes = _unchanged_probes(previous.probes if previous else [], groups)
        probes += [ProbeSummary(**_read_fields(group)) for group in groups[len(probes) :]]
        estimate = (
            Estimate.from_stored(_read_fields(file["estimate"])) if "estimate" in file else None
        )
        return PointRecord(
            header=Header(**_read_fields(file)),
            probes=probes,
            estimate=estimate,
            evaluation=_read_fields(file["evaluation"]) if "evaluation" in file else None,
            estimates={
                int(name): Estimate.from_stored(_read_fields(file["estimates"][name]))
                for name in sorted(file.get("estimates", ()))
            }
            or ({len(probes): estimate} if estimate else {}),  # measured before there was a group
        )


def read_loss_curves(path: Path) -> list[NDArray[np.float32]]:
    """Read the loss after each epoch of each probe, float32 (epochs,).

    Raises:
        PointError: as for :func:`open_point_file`.
    """
    with open_point_file(path) as file:
        return [group["loss_curve"][:] for group in probe_groups(file)]


def _read_fields(group: h5py.Group) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(group.attrs[JSON_ATTRIBUTE])
    return values


def probe_groups(file: h5py.File) -> list[h5py.Group]:
    """Return the groups of the probes, in the order in which the probes were appended."""
    return [file["probes"][name] for name in sorted(file["probes"], key=int)]


def _unchanged_probes(
    previous: Sequence[ProbeSummary], groups: Sequence[h5py.Group]
) -> list[ProbeSummary]:
    """Return the previous probes, or an empty list if the file does not start with them."""
    if not 0 < len(previous) <= len(groups):
        return []
    last = groups[len(previous) - 1].attrs["finished"]
    return list(previous) if last == previous[-1].finished else []


@contextlib.contextmanager
def open_point_file(path: Path) -> Iterator[h5py.File]:
    """Open a point file for reading.

    If the file name is a point id, the stored id must match it.

    Raises:
        PointError: the file is missing or corrupt, belongs to another point, or was written by
            another version of flexhpc.
    """
    if not path.exists():
        raise PointError(f"{path}: file not found; the point has not been measured yet")
    try:
        with h5py.File(h5py.h5f.open_file_image(_read_content(path))) as file:
            _check_schema(file, path)
            if _POINT_ID.fullmatch(path.stem) and file.attrs["point_id"] != path.stem:
                raise corruption_error(path, f"belongs to point {file.attrs['point_id']}")
            yield file
    except MemoryError:
        raise PointError(f"{path}: cannot be read: out of memory") from None
    except (KeyError, TypeError) as error:  # another version with the same schema
        raise PointError(
            f"{path}: unknown content ({one_line_message(error)}); use the version of flexhpc that "
            "wrote the file"
        ) from None


def _check_schema(file: h5py.File, path: Path) -> None:
    """Raise PointError if a file was written by another version of flexhpc."""
    if (schema := int(file.attrs["schema"])) != SCHEMA:
        raise PointError(
            f"{path}: unsupported schema ({schema}), because this flexhpc reads only schema "
            f"{SCHEMA}; use the version of flexhpc that wrote the file"
        )


def _read_content(path: Path) -> bytes:
    """Read a file and verify its checksum.

    Raises:
        PointError: the file cannot be read or is corrupt.
    """
    try:
        return checksum.read_verified(path)
    except OSError as error:
        raise PointError(f"{path}: cannot be read: {error.strerror or error}") from None
    except CorruptFile as error:
        raise corruption_error(path, str(error)) from None


def corruption_error(path: Path, problem: str) -> PointError:
    """Return the error for a corrupt point file, with a message that explains how to recover."""
    return PointError(
        f"{path}: is corrupt ({problem}); move it elsewhere and repeat the sweep command, which "
        "measures the point again"
    )


@contextlib.contextmanager
def _open_replacement(
    path: Path, *, copy: bool, is_permitted: IsPermitted = lambda: True
) -> Iterator[h5py.File]:
    """Open a copy of ``path`` for writing; at the end, replace ``path`` with the copy.

    The copy is in memory, because HDF5 does not handle disk errors during a write safely. If
    ``copy`` is False, open an empty file instead of a copy.
    """
    try:
        content = BytesIO(_read_content(path) if copy else b"")
        _check_memory(content.seek(0, os.SEEK_END))
        new = {} if copy else {"userblock_size": checksum.USER_BLOCK_SIZE}
        with h5py.File(content, "r+" if copy else "w", **new) as file:
            if copy:
                _check_schema(file, path)
            yield file
        with atomic_replacement(path, is_permitted=is_permitted) as part:
            part.write_bytes(checksum.add_checksum(content.getvalue()))
    except (OSError, RuntimeError, ValueError, MemoryError) as error:
        problem = "out of memory" if isinstance(error, MemoryError) else one_line_message(error)
        raise PointError(
            f"{path}: cannot be written ({problem}); its content is unchanged"
        ) from None


def _check_memory(file_size: int) -> None:
    """Raise MemoryError if there is not enough memory to change a file of ``file_size`` bytes.

    Without this check, HDF5 may crash the process when an allocation fails. The memory limit of a
    control group (cgroup) is not checked; the kernel kills a process that exceeds this limit.
    """
    try:
        size = _FIXED_MEMORY + _MEMORY_COPIES * file_size
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE).close()  # reserves address space only
    except OSError:
        raise MemoryError from None
