"""Estimate the remaining time of a sweep from the times of its finished points."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from flexhpc.store.status import PointStatus

_DRAWS = 200
_MIN_FINISHED = 2
_MIN_REMAINING = 0.25
"""Minimum remaining time of an unfinished point, as a fraction of its elapsed time."""


def estimate_remaining_seconds(statuses: Sequence[PointStatus]) -> tuple[float, float] | None:
    """Estimate a range for the remaining seconds of a sweep; return None until two points are done.

    The total time of each unfinished point is drawn at random from the times of the finished points
    that differ from the point only in the seed, or from the times of all finished points if there
    are no such points. The range is from the 10% to the 90% quantile of 200 draws. The estimate is
    too low if the points that take longest are measured last.
    """
    finished = [s for s in statuses if s.state == "done" and _training_seconds(s) > 0]
    if len(finished) < _MIN_FINISHED:
        return None
    rng = np.random.default_rng(0)  # fixed seed, so that the range does not jitter between calls
    by_values: dict[str, list[float]] = {}
    for status in finished:
        by_values.setdefault(_swept_values(status), []).append(_training_seconds(status))
    all_seconds = [_training_seconds(status) for status in finished]
    rows = []
    for status in statuses:
        if status.state not in ("done", "failed"):
            spent = _training_seconds(status)
            totals = rng.choice(by_values.get(_swept_values(status), all_seconds), _DRAWS)
            rows.append(np.maximum(totals - spent, _MIN_REMAINING * spent))
    if not rows:
        return 0.0, 0.0
    workers = max(1, sum(status.state == "running" for status in statuses))
    remaining = np.maximum(np.sum(rows, axis=0) / workers, np.max(rows, axis=0))
    low, high = np.quantile(remaining, [0.1, 0.9])
    return float(low), float(high)


def seconds_per_pass(statuses: Sequence[PointStatus]) -> NDArray[np.float64] | None:
    """Return the training time per sample pass (seconds) of each point, float64 (points,).

    Points without training runs get the median of the points with training runs. The result is
    None if no point has training runs.
    """
    costs = np.array([status.cost for status in statuses], dtype=np.float64)
    if not costs.any():
        return None
    seconds = np.array([_training_seconds(replace(status, progress={})) for status in statuses])
    speeds = seconds / np.maximum(costs, 1.0)
    return np.where(costs > 0, speeds, np.median(speeds[costs > 0]))


def _training_seconds(status: PointStatus) -> float:
    """Return the training time (seconds) of a point so far, including the current probe."""
    finished = sum(run.seconds for run in status.record.training_runs) if status.record else 0.0
    return finished + float(status.progress.get("elapsed", 0.0))


def _swept_values(status: PointStatus) -> str:
    """Return the values of all swept keys except the seed, as JSON."""
    swept = {key: value for key, value in status.point.swept.items() if key != "seed"}
    return json.dumps(swept, sort_keys=True, default=str)
