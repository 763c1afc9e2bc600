"""Read all results of a point from its file; change a point file."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from flexhpc.config import Point
from flexhpc.store import RunFolder, read_loss_curves, read_masks, read_point_file
from flexhpc.store.checksum import add_checksum
from flexhpc.store.point_file import JSON_ATTRIBUTE


def results_of_point(point: Point, run: RunFolder) -> dict[str, Any]:
    """Return all results of a point, sorted by arm and n: concurrent probes end in any order."""
    record, masks = read_point_file(run.point_file(point.id)), read_masks(run.point_file(point.id))
    assert record is not None
    keys = [(probe.arm, probe.n, probe.repeat, probe.stage) for probe in record.probes]
    losses = read_loss_curves(run.point_file(point.id))
    order = sorted(range(len(keys)), key=keys.__getitem__)
    probes = [record.probes[i] for i in order]
    return {
        "probes": [
            (p.arm, p.n, p.repeat, p.verdict, p.n_errors, p.cost, p.epochs, p.stage) for p in probes
        ],
        "losses": [losses[i].tobytes() for i in order],
        "subsets": [masks.subset[i].tobytes() for i in order],
        "fits": [masks.fit[i].tobytes() for i in order],
        "forgotten": [
            None if masks.forgotten[i] is None else masks.forgotten[i].tobytes() for i in order
        ],
        "estimate": record.estimate,
        "evaluation": {**(record.evaluation or {}), "seconds": 0},
    }


@contextlib.contextmanager
def edited(path: Path) -> Iterator[h5py.File]:
    """Open a point file to change it; update its checksum afterwards."""
    with h5py.File(path, "r+") as file:
        yield file
    path.write_bytes(add_checksum(path.read_bytes()))


def change_fields(group: h5py.Group, **changes: Any) -> None:
    """Change fields that a group of a point file stores as JSON."""
    group.attrs[JSON_ATTRIBUTE] = json.dumps({**json.loads(group.attrs[JSON_ATTRIBUTE]), **changes})
