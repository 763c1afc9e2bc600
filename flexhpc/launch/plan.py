"""What a sweep would measure, before anything is started. No torch but for ``--params``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flexhpc.errors import PointError
from flexhpc.launch.prepare import prepare
from flexhpc.launch.profile import load_profile
from flexhpc.search import cost_bound
from flexhpc.spec import Point
from flexhpc.spec.checks import known_shape
from flexhpc.store import RunFolder, read

_SHOWN = 40


def make_plan(
    spec: Path, overrides: Sequence[str], runs: Path, profile: Path | None, *, params: bool
) -> dict[str, Any]:
    """Return the plan as plain values.

    Raises:
        InputError: the spec or the profile is wrong.
        PointError: with ``params``, where data must be read for a shape and cannot be.
    """
    settings = load_profile(profile)
    prepared = prepare(spec, overrides, runs)
    bounds: dict[tuple[int, int, int], int | None] = {}
    rows = []
    started = prepared.run.path.is_dir()
    for point in prepared.points:
        key = (id(point.search), id(point.training), id(point.data))
        if key not in bounds:
            bounds[key] = _bound(point)
        row = {
            "index": point.index,
            "id": point.id,
            "label": point.label,
            "swept": point.swept,
            "state": "done" if started and _is_done(prepared.run, point) else "to measure",
            "cost_bound": bounds[key],
        }
        if params:
            row["params"] = _parameters(point)
        rows.append(row)
    open_rows = [row for row in rows if row["state"] != "done"]
    known = [row["cost_bound"] for row in open_rows]
    return {
        "name": prepared.run.name,
        "run": str(prepared.run.path),
        "points": rows,
        "to_measure": len(open_rows),
        "cost_bound": None if None in known else sum(known),
        "layout": {
            "cluster": settings.cluster,
            "workers": min(settings.worker_count(), max(1, len(open_rows))),
            "cpus_per_process": settings.cpus_per_process,
        },
    }


def plan_lines(planned: dict[str, Any]) -> list[str]:
    """Return the plan as lines for a person; a long sweep is cut."""
    rows, layout, bound = planned["points"], planned["layout"], planned["cost_bound"]
    lines = [
        f"{planned['name']}: {len(rows)} points, {planned['to_measure']} to measure, into "
        f"{planned['run']}",
        f"on {layout['cluster']}: {layout['workers']} workers of {layout['cpus_per_process']} "
        "threads, one point each at a time",
        "cost at most "
        + (f"{bound:,} sample passes" if bound is not None else "unknown until the data is read"),
    ]
    for row in rows[:_SHOWN]:
        count = f"  {row['params']:,} parameters" if "params" in row else ""
        lines.append(f"{row['index']:>6}  {row['id']}  {row['state']:10}  {row['label']}{count}")
    if len(rows) > _SHOWN:
        lines.append(f"   ... {len(rows) - _SHOWN} more; --json lists all")
    return lines


def _bound(point: Point) -> int | None:
    known = known_shape(point.data)
    n_limit = point.data.n_max or (known[2] if known else None)
    return None if n_limit is None else cost_bound(point.search, point.training, n_limit)


def _is_done(run: RunFolder, point: Point) -> bool:
    try:
        record = read(run.point(point.id))
    except PointError:
        return False
    return record is not None and record.estimate is not None


def _parameters(point: Point) -> int:
    from flexhpc.models import count_parameters

    known = known_shape(point.data)
    if known is None:
        from flexhpc.data import load_samples

        dataset = load_samples(point.data, point.seed).dataset
        return count_parameters(point.model, dataset.shape, dataset.classes)
    return count_parameters(point.model, known[0], known[1])
