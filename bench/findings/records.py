"""Store and load finished sweeps without masks and loss curves."""

from __future__ import annotations

import json
import lzma
from dataclasses import asdict
from pathlib import Path

from flexhpc.config import load_points
from flexhpc.search import Estimate
from flexhpc.store.record import Header, PointRecord, ProbeSummary
from flexhpc.store.status import PointStatus, StatusReader, open_run

_OMITTED = ("machine", "metrics", "seeds")


def save_records(run: Path, target: Path) -> Path:
    """Write the records of a finished run to one file in the folder ``target``; return its path.

    Raises:
        SystemExit: A point is not finished.
    """
    folder, _, points = open_run(run)
    statuses = StatusReader(folder, points).read()
    if unfinished := sum(status.state != "done" for status in statuses):
        raise SystemExit(f"{run}: {unfinished} points are not finished")
    content = {"spec": folder.spec.read_text(), "points": {s.point.id: _json(s) for s in statuses}}
    path = target / f"{folder.name}.json.xz"
    path.write_bytes(lzma.compress(json.dumps(content).encode(), preset=9))
    return path


def _json(status: PointStatus) -> dict[str, object]:
    record, estimate = status.record, status.estimate
    assert record is not None
    assert estimate is not None
    probes = [
        {k: v for k, v in vars(probe).items() if k not in _OMITTED} for probe in record.probes
    ]
    header = {k: v for k, v in asdict(record.header).items() if k != "point"}
    return {
        "header": header, "probes": probes, "estimate": asdict(estimate),
        "estimates": {count: asdict(earlier) for count, earlier in record.estimates.items()},
        "evaluation": record.evaluation,
    }  # fmt: skip


def load_records(path: Path, scratch: Path) -> tuple[list[PointStatus], str]:
    """Load a stored sweep; return the statuses of its points and the text of its spec.

    Args:
        path: file written by :func:`save_records`.
        scratch: folder for a copy of the spec, because specs are read from files.
    """
    stored = json.loads(lzma.decompress(path.read_bytes()))
    spec = scratch / f"{path.name.split('.')[0]}.yaml"
    spec.write_text(stored["spec"])
    statuses = []
    for point in load_points(spec)[1]:
        if point.optional and point.id not in stored["points"]:
            continue  # the sweep ended without this point
        content = stored["points"][point.id]
        probes = [ProbeSummary(**p, seeds={}) for p in content["probes"]]
        record = PointRecord(
            header=Header(point=point.canonical, **content["header"]), probes=probes,
            estimate=Estimate.from_stored(content["estimate"]), evaluation=content["evaluation"],
            estimates={
                int(count): Estimate.from_stored(estimate)
                for count, estimate in content.get("estimates", {}).items()
            },
        )  # fmt: skip
        statuses.append(
            PointStatus(point=point, state="done", record=record, estimate=record.estimate)
        )
    return statuses, stored["spec"]
