"""What the finished points of a run say of one that begins, and how its file remembers that."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict

from flexhpc.errors import PointError
from flexhpc.search.neighbours import Belief, Neighbour, believe
from flexhpc.spec import Point
from flexhpc.spec.sections import Bayes
from flexhpc.store import RunFolder, read_finished
from flexhpc.store.record import FinishedPoint

_MOST = 100
"""Finished points that are looked at: each is a file to open."""
_SIZES = ("width", "depth", "heads", "scale", "match_params")
"""Keys of a model that make it larger: points that differ in nothing else form a group."""


def belief_about(point: Point, params: int, run: RunFolder) -> Belief | None:
    """Return where the EMC of a point is expected, from the run's finished points.

    Only those with the same estimand and an interval that is closed on both sides count.

    Args:
        point: the one that begins; params: its trainable parameters; run: its run folder.
    """
    if not isinstance(point.search, Bayes) or not point.search.neighbours:
        return None
    neighbours, points = [], []
    for finished in _finished(run):
        if finished.header.point_id == point.id:
            continue
        estimate = finished.estimate
        same = estimate["estimand"] == point.search.estimand
        if same and estimate["censored"] == "none" and estimate["emc"] > 1:
            points.append(finished.header.point_id)
            neighbours.append(
                Neighbour(
                    params=finished.header.params,
                    emc=estimate["emc"],
                    emc_lo=estimate["emc_lo"],
                    emc_hi=estimate["emc_hi"],
                    group=_group(finished.header.point),
                )
            )
    return believe(neighbours, params, _group(point.canonical), points)


def _finished(run: RunFolder) -> Iterator[FinishedPoint]:
    """Yield the points that ended last, the newest first."""
    count = 0
    for path in run.newest():
        finished = None
        with contextlib.suppress(PointError):
            finished = read_finished(path)
        if finished is not None:
            yield finished
            count += 1
            if count == _MOST:
                return


def written(belief: Belief | None) -> str:
    """Return a belief as a point's file holds it."""
    return "" if belief is None else json.dumps(asdict(belief))


def recalled(text: str) -> Belief | None:
    """Return the belief that a point's file holds."""
    if not text:
        return None
    values = json.loads(text)
    return Belief(**{**values, "points": tuple(values["points"])})


def _group(canonical: str) -> str:
    """Return what points have in common that differ in the size of their model, or in the seed."""
    values = json.loads(canonical)
    model = {key: value for key, value in values["model"].items() if key not in _SIZES}
    return json.dumps([values["data"], model, values["training"]], sort_keys=True)
