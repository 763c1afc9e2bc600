"""Finished sweeps without masks and loss curves: what estimates, comparisons and figures need."""

from __future__ import annotations

import json
import lzma
from dataclasses import asdict
from pathlib import Path

import numpy as np

from flexhpc.config import Point, checked
from flexhpc.search import Estimate
from flexhpc.store.record import Header, PointRecord, ProbeSummary
from flexhpc.store.status import PointStatus, StatusReader, open_run

_LEFT_OUT = ("loss_curve", "machine", "readings", "seeds")


def keep(run: Path, folder: Path) -> Path:
    """Write the records of a finished run into one file; returns it.

    Raises:
        SystemExit: a point is not measured to the end.
    """
    opened, _, points = open_run(run)
    statuses = StatusReader(opened, points).read()
    if left := sum(status.state != "done" for status in statuses):
        raise SystemExit(f"{run}: {left} points are not measured yet")
    kept = {"spec": opened.spec.read_text(), "points": {s.point.id: _plain(s) for s in statuses}}
    path = folder / f"{opened.name}.json.xz"
    path.write_bytes(lzma.compress(json.dumps(kept).encode(), preset=9))
    return path


def _plain(status: PointStatus) -> dict[str, object]:
    record, estimate = status.record, status.estimate
    assert record is not None
    assert estimate is not None
    probes = [
        {k: v for k, v in vars(probe).items() if k not in _LEFT_OUT} for probe in record.probes
    ]
    header = {k: v for k, v in asdict(record.header).items() if k != "point"}
    return {
        "header": header, "probes": probes,
        "estimate": asdict(estimate), "evaluation": record.evaluation,
    }  # fmt: skip


def kept(path: Path, scratch: Path) -> tuple[list[PointStatus], str]:
    """Return the points that a file holds, as their run folder would, and the frozen spec.

    Args:
        path: that :func:`keep` wrote; scratch: folder for the spec, which is read from a file.
    """
    stored = json.loads(lzma.decompress(path.read_bytes()))
    spec = scratch / f"{path.name.split('.')[0]}.yaml"
    spec.write_text(stored["spec"])
    none = np.empty(0, np.float32)
    statuses = []
    for point in checked(spec)[1]:
        held = stored["points"][point.id]
        probes = [
            ProbeSummary(**{**dict(probe), "seeds": {}, "loss_curve": none})
            for probe in held["probes"]
        ]
        record = PointRecord(
            header=Header(point=point.canonical, **held["header"]), probes=probes,
            estimate=Estimate.of(held["estimate"]), evaluation=held["evaluation"],
        )  # fmt: skip
        statuses.append(
            PointStatus(point=point, state="done", record=record, estimate=record.estimate)
        )
    return statuses, stored["spec"]


def cell_of(point: Point) -> str:
    """Return what points that differ in their seed only have in common."""
    canonical = json.loads(point.canonical)
    return json.dumps({key: one for key, one in canonical.items() if key != "seed"}, sort_keys=True)
