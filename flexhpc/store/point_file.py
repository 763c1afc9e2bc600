"""A point's HDF5 file: the record of its probes and their fit masks.

Every change is made on a copy that then replaces the file, so that a crash, a full disk or a
concurrent reader sees all finished probes or all but the newest, and never a broken file. The
files are small (two bits a sample and probe), so the copy costs milliseconds beside a training.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from flexhpc.atomic import replacing
from flexhpc.errors import PointError, one_line
from flexhpc.store.bits import pack
from flexhpc.store.record import Header, PointRecord, ProbeRecord, ProbeSummary

Permitted = Callable[[], bool]

SCHEMA = 1
_READING = "reading."
_MACHINE = "machine."
_TUNED = "tuned."
_SEEDS = ("init", "subset", "labels", "order")
_PLAIN = (
    "n", "repeat", "verdict", "n_errors", "train_accuracy", "loss", "epochs", "steps", "cost",
    "seconds", "finished", "rejected", "arm",
)  # fmt: skip
_ABSENT = {
    "rejected": False, "arm": 0, "classes": 0, "bits": 0, "n_pool": 0, "conflict_groups": "",
}  # fmt: skip
"""What files of flexhpc 0.1 do not say."""


def create(path: Path, header: Header) -> None:
    """Write a new file without probes."""
    with _replacing(path, copy=False) as file:
        file.attrs["schema"] = SCHEMA
        for key, value in vars(header).items():
            file.attrs[key] = value
        file.create_group("probes")


def append(path: Path, probe: ProbeRecord, permitted: Permitted = lambda: True) -> None:
    """Add one finished probe; it is either wholly there afterwards or not at all.

    Args:
        path: the point's file.
        probe: what to add.
        permitted: asked last of all, when only a rename is left to do; if False nothing changes.

    Raises:
        PointError: the file cannot be read, or the disk is full.
    """
    with _replacing(path, copy=True, permitted=permitted) as file:
        group = file["probes"].create_group(f"{len(file['probes']):04d}")
        for key in _PLAIN:
            group.attrs[key] = getattr(probe, key)
        for stream in _SEEDS:
            group.attrs[f"seed_{stream}"] = probe.seeds[stream]
        for name, reading in probe.readings.items():
            group.attrs[_READING + name] = reading
        for name, value in probe.tuned.items():
            group.attrs[_TUNED + name] = value
        for name, text in probe.machine.items():
            group.attrs[_MACHINE + name] = text
        n_total = int(file.attrs["n_total"])
        arrays = {
            "subset": pack(probe.subset, n_total),
            "fit": pack(probe.subset[probe.fitted], n_total),
            "loss_curve": probe.loss_curve,
            "error_curve": probe.error_curve,
        }
        if probe.unseen is not None and probe.unseen_fitted is not None:
            arrays["unseen"] = pack(probe.unseen, n_total)
            arrays["unseen_fit"] = pack(probe.unseen[probe.unseen_fitted], n_total)
        for name, array in arrays.items():
            group.create_dataset(name, data=array, compression="gzip", compression_opts=1)


def finish(path: Path, estimate: Mapping[str, Any], permitted: Permitted = lambda: True) -> None:
    """Write the final estimate; fields that are None are left out. See :func:`append`."""
    _write_group(path, "estimate", estimate, permitted)


def evaluated(
    path: Path, evaluation: Mapping[str, Any], permitted: Permitted = lambda: True
) -> None:
    """Write how well the model generalizes. See :func:`append`."""
    _write_group(path, "evaluation", evaluation, permitted)


def _write_group(path: Path, name: str, values: Mapping[str, Any], permitted: Permitted) -> None:
    with _replacing(path, copy=True, permitted=permitted) as file:
        if name in file:
            del file[name]
        _write_values(file.create_group(name), values)


def _write_values(group: h5py.Group, values: Mapping[str, Any]) -> None:
    """Write plain values as attributes and mappings as groups; None is left out."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            _write_values(group.create_group(key), value)
        elif value is not None:
            group.attrs[key] = value


def _read_values(group: h5py.Group) -> dict[str, Any]:
    values = {key: _plain(value) for key, value in group.attrs.items()}
    return values | {key: _read_values(inner) for key, inner in group.items()}


def read(path: Path, known: PointRecord | None = None) -> PointRecord | None:
    """Read a point's file; None if there is none.

    Args:
        path: of the file; known: what it held before, whose probes are not read again.

    Raises:
        PointError: the file is damaged, or of a newer flexhpc.
    """
    if not path.exists():
        return None
    with reading(path) as file:
        groups = [file["probes"][key] for key in sorted(file["probes"], key=int)]
        probes = _still_there(known.probes if known else [], groups)
        probes += [_summary(group) for group in groups[len(probes) :]]
        return PointRecord(
            header=_header(file),
            probes=probes,
            estimate=_estimate(file),
            evaluation=_evaluation(file),
        )


def _still_there(known: Sequence[ProbeSummary], groups: Sequence[h5py.Group]) -> list[ProbeSummary]:
    """Return the probes known before if the file goes on from them; none if it is another one."""
    if not 0 < len(known) <= len(groups):
        return []
    last = groups[len(known) - 1].attrs["finished"]
    return list(known) if _plain(last) == known[-1].finished else []


def _header(file: h5py.File) -> Header:
    attributes = {**_ABSENT, **file.attrs}
    return Header(**{key: _plain(attributes[key]) for key in Header.__dataclass_fields__})


def _estimate(file: h5py.File) -> dict[str, Any] | None:
    if "estimate" not in file:
        return None
    absent = dict.fromkeys(("emc_hi", "largest_fit", "smallest_fail"))
    return {**absent, **_read_values(file["estimate"])}


def _evaluation(file: h5py.File) -> dict[str, Any] | None:
    if "evaluation" not in file:
        return None
    evaluation = _read_values(file["evaluation"])
    # Those of flexhpc 0.1 had all samples and the budget of a probe.
    return {"asked": {}, "interpolated": evaluation["train_accuracy"] == 1, **evaluation}


@contextlib.contextmanager
def reading(path: Path) -> Iterator[h5py.File]:
    """Open a point's file to read; every way in which it can be broken is one clear line.

    Raises:
        PointError: not HDF5, cut short, a part is missing, or of a newer flexhpc.
    """
    if not path.exists():
        raise PointError(f"{path}: there is no such file: the point was not measured yet")
    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            schema = int(file.attrs["schema"])
            if schema > SCHEMA:
                raise PointError(
                    f"{path}: has schema {schema}, written by a newer flexhpc; this one reads "
                    f"up to {SCHEMA}, so upgrade it"
                )
            yield file
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        what = one_line(error)
        raise PointError(
            f"{path}: not a readable point file ({what}); move it away, and the same sweep command "
            "measures the point again"
        ) from None


def _summary(group: h5py.Group) -> ProbeSummary:
    attributes = {**_ABSENT, **{key: _plain(value) for key, value in group.attrs.items()}}

    def prefixed(prefix: str) -> dict[str, Any]:
        size = len(prefix)
        return {k[size:]: v for k, v in attributes.items() if k.startswith(prefix)}

    return ProbeSummary(
        **{key: attributes[key] for key in _PLAIN},
        seeds=prefixed("seed_"),
        readings=prefixed(_READING),
        machine=prefixed(_MACHINE),
        tuned=prefixed(_TUNED),
        loss_curve=group["loss_curve"][:],
    )


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return tuple(value.tolist())
    return value.item() if isinstance(value, np.generic) else value


@contextlib.contextmanager
def _replacing(
    path: Path, *, copy: bool, permitted: Permitted = lambda: True
) -> Iterator[h5py.File]:
    """Open a copy of ``path`` (or a new file) to write, and put it in its place at the end."""
    try:
        with replacing(path, permitted=permitted) as part:
            if copy:
                with reading(path):
                    pass
                shutil.copyfile(path, part)
            with h5py.File(part, "a" if copy else "w", locking="best-effort") as file:
                yield file
    except (OSError, RuntimeError, ValueError) as error:
        what = one_line(error)
        raise PointError(f"{path}: cannot be written, what it held is untouched: {what}") from None
