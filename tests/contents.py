"""All that was measured of a point, to compare two runs of it; and a point's file changed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from flexhpc.config import Point
from flexhpc.store import RunFolder, read, read_masks
from flexhpc.store.point_file import AS_TEXT
from flexhpc.store.seal import add_checksum


def contents(point: Point, run: RunFolder) -> dict[str, Any]:
    """Everything measured, in the order of arm and n: side by side, another may end first."""
    record, masks = read(run.point(point.id)), read_masks(run.point(point.id))
    assert record is not None
    keys = [(probe.arm, probe.n, probe.repeat) for probe in record.probes]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    probes = [record.probes[i] for i in order]
    return {
        "probes": [(p.arm, p.n, p.repeat, p.verdict, p.n_errors, p.cost, p.epochs) for p in probes],
        "losses": [p.loss_curve.tobytes() for p in probes],
        "subsets": [masks.subset[i].tobytes() for i in order],
        "fits": [masks.fit[i].tobytes() for i in order],
        "forgotten": [
            None if one is None else one.tobytes()
            for one in map(masks.forgotten.__getitem__, order)
        ],
        "estimate": record.estimate,
        "evaluation": {**(record.evaluation or {}), "seconds": 0},
    }


@contextlib.contextmanager
def edited(path: Path) -> Iterator[h5py.File]:
    """Open a point's file to change it; its checksum is that of the changed content."""
    with h5py.File(path, "r+") as file:
        yield file
    path.write_bytes(add_checksum(path.read_bytes()))


def change_fields(group: h5py.Group, **changes: Any) -> None:
    """Change fields of a group of a point's file, as they are read."""
    group.attrs[AS_TEXT] = json.dumps({**json.loads(group.attrs[AS_TEXT]), **changes})
