"""Plan of a sweep: its points, its workers or array jobs, and an upper bound on its cost.

torch is imported only for the options ``--params`` and ``--time``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flexhpc.analysis.text import duration_text
from flexhpc.config import Point
from flexhpc.config.checks import preprocessed_info
from flexhpc.config.sections.base import LOCATION
from flexhpc.config.sections.model import Network
from flexhpc.errors import InputError, PointError
from flexhpc.launch.prepare import prepare_run
from flexhpc.launch.profile import LocalProfile, SlurmProfile, load_profile
from flexhpc.launch.remaining_time import seconds_per_pass
from flexhpc.launch.slurm.arrays import PlannedArray, divide_into_arrays
from flexhpc.launch.slurm.commands import DEFAULT_MAX_ARRAY_SIZE, Slurm, SlurmUnavailable
from flexhpc.search import cost_bound, probes_per_round
from flexhpc.store.status import PointStatus, StatusReader

if TYPE_CHECKING:
    from flexhpc.models import ParameterCounts

_MAX_ROWS = 40


def make_plan(
    spec: Path, overrides: Sequence[str], runs: Path, profile: Path | None, *, count_params: bool,
    time_training: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Return the plan of a sweep as a JSON-serializable dict; nothing is written.

    Args:
        spec, overrides, runs, profile: see :func:`flexhpc.launch.prepare.prepare_run` and
            :func:`flexhpc.launch.profile.load_profile`.
        count_params: whether to count the trainable parameters of each point.
        time_training: whether to time a few updates of each network on this machine.

    Raises:
        InputError: the spec or the profile is invalid, or cannot be combined with
            ``time_training``.
        PointError: parameters are counted or updates are timed, but the data cannot be read to
            determine its shape, or a network cannot be built.
    """
    settings = load_profile(profile)
    if time_training and isinstance(settings, SlurmProfile):
        raise InputError("--time: cannot be combined with a SLURM profile, because it times updates"
            " on this machine; remove --time or --profile")  # fmt: skip
    prepared = prepare_run(spec, overrides, runs)
    bounds: dict[tuple[int, int, int], tuple[int | None, int | None]] = {}
    rows: list[dict[str, Any]] = []
    statuses = StatusReader(prepared.run, prepared.points).read()
    for status in statuses:
        point = status.point.with_precise_search()
        key = (id(point.search), id(point.training), id(point.data))
        if key not in bounds:
            bounds[key] = _max_cost_bound(point), _max_cost_bound(point, doublings=0)
        row = {
            "index": point.index,
            "id": point.id,
            "label": point.label,
            "swept": point.swept,
            "state": "done" if status.state == "done" else "to measure",
            "cost_bound": bounds[key][0],
            "first_cost_bound": bounds[key][1],
        }
        if count_params:
            counts = _parameter_counts(point)
            row["params"] = counts and counts.trained
            row["params_total"] = counts and counts.total
        rows.append(row)
    listed = {status.point.id for status in statuses}
    further = [
        _max_cost_bound(p.with_precise_search()) for p in prepared.points if p.id not in listed
    ]
    open_rows = [row for row in rows if row["state"] != "done"]
    layout = _worker_layout(settings, [row["id"] for row in open_rows])
    at_once = (probes_per_round(point.search) for point in prepared.points)
    layout["planned_at_once"] = max(at_once, default=1)
    from flexhpc.data.standard_files import no_downloads

    open_points = [status.point for status in statuses if status.state != "done"]
    with no_downloads():
        missing = missing_data(open_points)
    speeds = seconds_per_pass(statuses)
    if time_training:
        from flexhpc.measuring.speed import time_updates

        timed = time_updates(open_points, settings.cpus_per_process)
        speeds = np.array([timed.get(status.point.id, np.nan) for status in statuses])
    time_bounds = [
        _time_bound(statuses, [row[key] for row in rows], speeds, layout)
        for key in ("cost_bound", "first_cost_bound")
    ]
    return {
        "name": prepared.run.name,
        "run": str(prepared.run.path),
        "points": rows,
        "to_measure": len(open_rows),
        "optional": len(prepared.points) - len(statuses),
        "cost_bound": _sum_of_bounds([row["cost_bound"] for row in open_rows] + further),
        "first_cost_bound": _sum_of_bounds([row["first_cost_bound"] for row in open_rows]),
        "time_bound": time_bounds[0],
        "first_time_bound": time_bounds[1],
        "is_timed": time_training,
        "layout": layout,
        "missing_data": list(dict.fromkeys(missing.values())),
    }


def missing_data(points: Sequence[Point]) -> dict[str, str]:
    """Return an error message for each point whose data set is not found, by point id.

    Missing image sets are downloaded, except within ``no_downloads()``.
    """
    from flexhpc.data.sources import find_samples

    messages: dict[str, str] = {}
    by_point: dict[str, str] = {}
    for point in points:
        data = point.data
        key = data.model_dump_json(include={*data.reading_keys(), *data.fields_with_mark(LOCATION)})
        if key not in messages:
            messages[key] = ""
            try:
                find_samples(data, point.seed)
            except (PointError, OSError, RuntimeError) as error:  # of paths such as ~unknown/x
                messages[key] = str(error)
        if messages[key]:
            by_point[point.id] = messages[key]
    return by_point


def _sum_of_bounds(bounds: Sequence[int | None]) -> int | None:
    """Return the sum of cost bounds; None if any of them is None."""
    known = [bound for bound in bounds if bound is not None]
    return sum(known) if len(known) == len(bounds) else None


def _time_bound(
    statuses: Sequence[PointStatus], bounds: Sequence[int | None],
    speeds: NDArray[np.float64] | None, layout: Mapping[str, Any],
) -> float | None:  # fmt: skip
    """Return an upper bound on the remaining time (seconds).

    Args:
        statuses: status of each point.
        bounds: cost bound of each point.
        speeds: training time per sample pass (seconds) of each point, float64 (points,); None if it
            is unknown.
        layout: see :func:`_worker_layout`.

    Returns:
        The bound. None if ``speeds`` is None, if an unfinished point has no cost bound, or if the
        sweep runs on a cluster, where the waiting time in the queue is unknown.
    """
    if speeds is None or layout["cluster"] != "local":
        return None
    remaining: list[float] = []
    concurrent = min(layout["probes_at_once"], layout["planned_at_once"])
    for status, bound, speed in zip(statuses, bounds, speeds, strict=True):
        if status.state != "done":
            if bound is None:
                return None
            remaining.append(max(bound - status.cost, 0) * float(speed) / concurrent)
    return max(sum(remaining) / int(layout["workers"]), max(remaining, default=0.0))


def _worker_layout(profile: LocalProfile | SlurmProfile, points: list[str]) -> dict[str, Any]:
    """Return a dict that describes the workers (local) or the array jobs (SLURM) of a sweep."""
    each = {
        "cluster": profile.cluster,
        "processes_per_node": profile.processes_per_node,
        "cpus_per_process": profile.cpus_per_process,
    }
    if isinstance(profile, LocalProfile):
        workers, probes_at_once = profile.workers_and_probes(max(1, len(points)))
        return {**each, "workers": workers, "probes_at_once": probes_at_once}
    arrays = planned_arrays(profile, points)
    return {
        **each,
        "probes_at_once": profile.probes_at_once or 1,
        "nodes": profile.nodes,
        "points_per_task": profile.points_per_task,
        "throttle": profile.throttle,
        "arrays": [{"tasks": array.tasks, "throttle": array.throttle} for array in arrays],
    }


def planned_arrays(profile: SlurmProfile, points: Sequence[str]) -> list[PlannedArray]:
    """Return the array jobs for these points.

    If the SLURM controller does not respond, SLURM's default limit on the array size is assumed.
    """
    try:
        limit = Slurm.with_conf(profile.slurm_conf).max_array_size()
    except SlurmUnavailable:
        limit = DEFAULT_MAX_ARRAY_SIZE
    max_array = min(limit, profile.max_array or limit)
    return divide_into_arrays(
        points, per_task=profile.points_per_task, max_array=max_array, throttle=profile.throttle
    )


def plan_lines(planned: dict[str, Any]) -> list[str]:
    """Format the plan as lines of text; at most 40 points are listed."""
    rows, bound, first = planned["points"], planned["cost_bound"], planned["first_cost_bound"]
    cost = "no known cost bound" if bound is None else f"cost at most {bound:,} sample passes"
    if bound and first and first < bound:
        cost += f" ({first:,} if no budget is doubled)"
    if planned["time_bound"] is not None and planned["to_measure"]:
        cost += f"\ntime at most {duration_text(planned['time_bound'])}"
        if bound and first and first < bound:
            cost += f" ({duration_text(planned['first_time_bound'])} if no budget is doubled)"
        cost += (
            ", extrapolated from a few updates on this machine"
            if planned["is_timed"]
            else " at the speed of this run so far"
        )
    lines = [
        f"{planned['name']}: {count_text(len(rows), 'point')}, {planned['to_measure']} to measure; "
        f"run folder: {planned['run']}",
        _layout_text(planned["layout"]),
        cost,
    ]
    if planned["optional"]:
        lines.append(
            f"comparisons may need {count_text(planned['optional'], 'further point')} with other "
            "seeds, or may end the sweep before all points are measured precisely"
        )
    lines += [f"warning: {message}" for message in planned["missing_data"]]
    for row in rows[:_MAX_ROWS]:
        count = ""
        if row.get("params"):
            frozen = row["params_total"] > row["params"]
            of_total = f" of {row['params_total']:,}" if frozen else ""
            count = f"  {row['params']:,}{of_total} parameters"
        lines.append(f"{row['index']:>6}  {row['id']}  {row['state']:10}  {row['label']}{count}")
    if len(rows) > _MAX_ROWS:
        lines.append(f"   ... {len(rows) - _MAX_ROWS} more points; --json lists all points")
    return lines


def _layout_text(layout: dict[str, Any]) -> str:
    processes = count_text(layout["processes_per_node"], "process")
    size = f"{processes} of {count_text(layout['cpus_per_process'], 'thread')}"
    if layout["cluster"] == "local":
        text = f"on this machine: {count_text(layout['workers'], 'worker')}, each with {size}"
    else:
        arrays = count_text(len(layout["arrays"]), "array job")
        tasks = count_text(sum(array["tasks"] for array in layout["arrays"]), "task")
        limit = f", at most {layout['throttle']} tasks at a time" if layout["throttle"] else ""
        text = (
            f"on SLURM: {arrays} with {tasks}{limit}; each task measures "
            f"{count_text(layout['points_per_task'], 'point')} on "
            f"{count_text(layout['nodes'], 'node')}, with {size} on each node"
        )
    planned = layout["planned_at_once"]
    if planned > 1:
        concurrent = min(planned, layout["probes_at_once"])
        text += (
            f"; searches plan up to {planned} probes at once, of which {concurrent} can run "
            "concurrently (set by probes_at_once in the profile)"
        )
    return text


def count_text(number: int, noun: str) -> str:
    """Format a count with its noun: ``1 point``, ``3 points``."""
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{number} {noun if number == 1 else plural}"


def _max_cost_bound(point: Point, doublings: int | None = None) -> int | None:
    """Return the largest cost bound of a point's arms; None if any arm has no known bound.

    ``doublings`` is as in :func:`cost_bound`.
    """
    info, tuned = preprocessed_info(point.data), len(point.arms) > 1
    n_limit = point.data.n_max or (info.size if info else None)
    if n_limit is None:
        return None
    bounds = [
        cost_bound(point.search, arm.training, n_limit, tuned=tuned, doublings=doublings)
        for arm in point.arms
    ]
    known = [bound for bound in bounds if bound is not None]
    return max(known) if len(known) == len(bounds) else None


def _parameter_counts(point: Point) -> ParameterCounts | None:
    from flexhpc.models import count_parameters

    if not isinstance(point.model, Network):
        return None
    info = preprocessed_info(point.data)
    if info is not None:
        return count_parameters(point.model, info.shape, info.classes)
    from flexhpc.data import load_samples

    samples = load_samples(point.data, point.seed)
    return count_parameters(point.model, samples.shape, samples.classes)
