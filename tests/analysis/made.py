"""Points that a test makes up: a spec's points with probes that it says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flexhpc.config import Point, checked
from flexhpc.search import estimate_so_far, history_of
from flexhpc.store import Header
from flexhpc.store.record import PointRecord, ProbeSummary
from flexhpc.store.status import PointStatus

Outcome = tuple[int, int] | tuple[int, int, str]
"""n and missed samples of a probe, and its verdict where it is neither ``fit`` nor ``not_fit``."""

BISECTION = "{policy: bisection, start: 16}"
BAYES = "{policy: bayes, start: 16}"


def points(folder: Path, search: str = BISECTION, data: str = "labels: random") -> list[Point]:
    """Return two points, of width 4 and 8."""
    spec = folder / "made.yaml"
    spec.write_text(
        f"name: made\nfixed:\n  data: {{source: digits, {data}}}\n"
        f"  model: {{family: mlp, depth: 1}}\n  search: {search}\ngrid:\n  model.width: [4, 8]\n"
    )
    return checked(spec)[1]


def summary(outcome: Outcome, repeat: int = 0, **changes: Any) -> ProbeSummary:
    """Return a finished probe."""
    n, missed = outcome[:2]
    verdict = outcome[2] if len(outcome) == 3 else ("not_fit" if missed else "fit")
    values = {
        "n": n, "repeat": repeat, "seeds": {}, "verdict": verdict, "n_errors": missed,
        "train_accuracy": 1 - missed / n, "loss": 0.1, "epochs": 10, "steps": 10, "cost": 10 * n,
        "seconds": 1.0, "finished": 1e9, "loss_curve": np.zeros(10, np.float32),
    }  # fmt: skip
    return ProbeSummary(**{**values, **changes})


def status(
    point: Point, outcomes: Sequence[Outcome], *, n_limit: int = 1000, **header: Any
) -> PointStatus:
    """Return where a point stands after these probes, with the estimate that its search has."""
    seen: dict[int, int] = {}
    probes = []
    for outcome in outcomes:
        probes.append(summary(outcome, seen.get(outcome[0], 0)))
        seen[outcome[0]] = seen.get(outcome[0], 0) + 1
    values = {
        "point": point.canonical, "point_id": point.id, "params": 100, "data_fingerprint": "f",
        "n_total": 1797, "n_limit": n_limit, "conflicts": 0, "unfittable": 0, "classes": 10,
        "bits": 3200, "n_pool": 1797, "conflict_groups": "[]",
    }  # fmt: skip
    record = PointRecord(
        header=Header(**{**values, **header}), probes=probes, estimate=None, evaluation=None
    )
    history = history_of(probes, point.training)
    return PointStatus(
        point=point,
        state="done",
        record=record,
        estimate=estimate_so_far(point.search, n_limit, history),
    )
