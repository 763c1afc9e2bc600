"""Points with given probes, or with simulated ones; text as a terminal shows it."""

from __future__ import annotations

import io
import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from flexhpc.analysis.report import report_runs
from flexhpc.config import Point, load_points
from flexhpc.search import estimate_so_far
from flexhpc.store import Header, RunFolder
from flexhpc.store.record import PointRecord, ProbeSummary, to_history
from flexhpc.store.status import PointStatus

Outcome = tuple[int, int] | tuple[int, int, str]
"""n and number of missed samples of a probe; its verdict if that is neither ``fit`` nor
``not_fit``."""

DIGITS = "fixed:\n  data: {source: digits}\n  model: {family: mlp, width: 4}\n"
"""A spec without name, budget and grid."""
BISECTION = "{policy: bisection, start: 16}"
BAYES = "{policy: bayes, start: 16}"
ALL_FIT: list[Outcome] = [(min(16 * 2**i, 1000), 0) for i in range(7)]
NONE_FIT: list[Outcome] = [(16, 9), (8, 7), (4, 2)]
UNCENSORED: list[Outcome] = [
    (16, 0), (32, 0), (64, 5), (45, 3), (38, 1), (34, 0), (36, 0), (37, 0),
]  # fmt: skip
"""Outcomes of bisections among 1,000 samples."""


def points_of(folder: Path, text: str) -> list[Point]:
    """Return the points of a spec; ``text`` is the spec without the key ``name``."""
    spec = folder / "test.yaml"
    spec.write_text(f"name: test\n{text}")
    return load_points(spec)[1]


def two_points(folder: Path, search: str = BISECTION, data: str = "labels: random") -> list[Point]:
    """Return two points, of width 4 and 8."""
    return points_of(
        folder,
        f"fixed:\n  data: {{source: digits, {data}}}\n"
        "  model: {family: mlp, depth: 1}\n  training: {epochs: 500}\n"
        f"  search: {search}\ngrid:\n  model.width: [4, 8]\n",
    )


def one_point(folder: Path, search: str = BISECTION, data: str = "labels: random") -> Point:
    """Return the point of width 4."""
    return two_points(folder, search, data)[0]


def swept_points(
    folder: Path, largest_fits: Sequence[int], params: Sequence[int] = (100,), **grid: list[Any]
) -> list[PointStatus]:
    """Return the points of a grid; ``largest_fits`` and ``params`` are assigned cyclically."""
    keys = {"width": "model.width", "depth": "model.depth", "activation": "model.activation",
            "labels": "data.labels", "lr": "training.lr", "seed": "seed"}  # fmt: skip
    lines = "".join(f"  {keys[key]}: {values}\n".replace("'", "") for key, values in grid.items())
    points = points_of(
        folder, f"{DIGITS}  training: {{optimizer: adam}}\n  search: {BAYES}\ngrid:\n{lines}"
    )
    return [
        measured_point(point, [(n // 2, 0), (n, 0), (n + 1, 1)], params=size)
        for point, n, size in zip(
            points, itertools.cycle(largest_fits), itertools.cycle(params), strict=False
        )
    ]


def probe_summary(outcome: Outcome, repeat: int = 0, **changes: Any) -> ProbeSummary:
    n, missed = outcome[:2]
    verdict = outcome[2] if len(outcome) == 3 else ("not_fit" if missed else "fit")
    values = {
        "n": n, "repeat": repeat, "seeds": {}, "verdict": verdict, "n_errors": missed,
        "train_accuracy": 1 - missed / n, "loss": 0.1, "epochs": 10, "steps": 10, "cost": 10 * n,
        "seconds": 1.0, "finished": 1e9,
    }  # fmt: skip
    return ProbeSummary(**{**values, **changes})


def render(renderable: object, width: int, *, colours: bool = False) -> list[str]:
    """Return the lines of a terminal of this width."""
    console = Console(
        width=width, file=io.StringIO(), force_terminal=colours,
        color_system="standard" if colours else None,
    )  # fmt: skip
    console.print(renderable)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def measured_point(
    point: Point, outcomes: Sequence[Outcome], *, n_limit: int = 1000, seconds: float = 1.0,
    **header: Any,
) -> PointStatus:  # fmt: skip
    """Return the status of a finished point with these probes and the estimate of its search."""
    repeats: dict[int, itertools.count[int]] = defaultdict(itertools.count)
    probes = [probe_summary(o, next(repeats[o[0]]), seconds=seconds) for o in outcomes]
    values = {
        "point": point.canonical, "point_id": point.id, "params": 100, "data_fingerprint": "f",
        "n_total": 1797, "n_limit": n_limit, "conflicts": 0, "unfittable": 0, "classes": 10,
        "bits": 3200, "n_pool": 1797, "conflict_groups": "[]",
    }  # fmt: skip
    record = PointRecord(
        header=Header(**{**values, **header}), probes=probes, estimate=None, evaluation=None
    )
    estimate = estimate_so_far(point.search, n_limit, to_history(probes, point.training))
    return PointStatus(point=point, state="done", record=record, estimate=estimate)


def write_report(
    statuses: Sequence[PointStatus], folder: Path, spec: str = "", title: str = "test"
) -> Path:
    """Write the report of a run whose folder may lack point files; return its page."""
    run = RunFolder(folder / title)
    run.path.mkdir(parents=True, exist_ok=True)
    run.spec.write_text(spec)
    return report_runs([(run, statuses)], folder)


ACTIVATIONS = """\
fixed:
  data: {source: fashion_mnist, labels: random}
  model: {family: mlp, depth: 1}
  training: {optimizer: adam, epochs: 500, schedule: cosine}
  search: {policy: bayes, start: 16}
grid:
  model.activation: [relu, tanh]
  model.width: [4, 8, 16]
"""
N_LIMIT = 60_000


def activation_points(folder: Path, seeds: int) -> list[Point]:
    """Return the points of two activations, three widths and ``seeds`` seeds."""
    return points_of(folder, f"{ACTIVATIONS}  seed: {list(range(seeds))}\n")


def simulate_point(
    point: Point, emc: float, rng: np.random.Generator, *,
    n_limit: int = N_LIMIT, lapse: float = 0.02, params: int = 100,
) -> PointStatus:  # fmt: skip
    """Simulate the search of a point with a known EMC.

    Args:
        emc: n at which half of the probes that do not lapse fit.
        n_limit: number of available samples.
        lapse: probability that a probe fails at any n.
    """
    outcomes = []
    for size in [*(emc * np.exp(rng.normal(0, 0.25, 14))), emc / 3, emc * 3]:
        n = min(max(1, round(size)), n_limit)
        chance = (1 - lapse) / (1 + math.exp((math.log(n) - math.log(emc)) / 0.12))
        outcomes.append((n, 0 if rng.random() < chance else max(1, n // 10)))
    return measured_point(point, outcomes, n_limit=n_limit, params=params)


def simulate_sweep(
    points: list[Point], true_emc: Callable[[Point], float], rng: np.random.Generator, *,
    scatter: float, n_limit: int = N_LIMIT, lapse: float = 0.02,
) -> list[PointStatus]:  # fmt: skip
    """Simulate a sweep of networks with 100 parameters per width.

    Args:
        true_emc: median EMC of a point.
        scatter: standard deviation of the log ratio of two EMCs.
        n_limit, lapse: see :func:`simulate_point`.
    """
    return [
        simulate_point(
            point, true_emc(point) * math.exp(rng.normal(0, scatter / math.sqrt(2))), rng,
            n_limit=n_limit, lapse=lapse, params=100 * point.swept["model.width"],
        )
        for point in points
    ]  # fmt: skip
