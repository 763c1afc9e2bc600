"""Record real trainings of the models in ``models/``, for searches to be replayed on.

A model's table: trainings at a ladder of n around its EMC, dense where the fit curve falls, and
some far from it, where searches come from. One file per model in ``recorded/``; an existing one is
kept.

Usage: FLEXHPC_DATA=FOLDER python bench/search/record.py [MODEL ...]
FOLDER holds Covertype and the credit data (docs/data.md). Two hours on a core.
"""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flexhpc.data import Samples, load_samples
from flexhpc.probe import Watch, choose_device, run_probe
from flexhpc.search import Estimate, advance, history_of
from flexhpc.search.hopeless import LOOKS
from flexhpc.spec import Point, checked
from flexhpc.store import ProbeRecord
from flexhpc.training import Group

HERE = Path(__file__).parent
MODELS, RECORDED = HERE / "models", HERE / "recorded"
NEAR = np.geomspace(1 / 2.4, 2.4, 15)
FAR = np.array([1 / 16, 1 / 10, 1 / 6, 1 / 4, 1 / 3, 3.0, 4.0, 6.0])
"""Both in units of the EMC that a pilot search finds."""
NEAR_SEEDS, FAR_SEEDS = 32, 10
PILOT = 1_000_000
"""First ``repeat`` of the recorded probes: the pilot's own are other trainings."""


@dataclass(frozen=True)
class Row:
    """One training, as far as it is kept; see :class:`bench.search.tables.Table`."""

    n: int
    repeat: int
    verdict: str
    n_errors: int
    epochs: int
    cost: int
    full_cost: int
    errors: NDArray[np.int32]
    losses: NDArray[np.float16]


@cache
def _opened(name: str) -> tuple[Point, Samples, Group]:
    group = Group(choose_device(threads=1))
    _, (point,) = checked(MODELS / f"{name}.yaml")
    return point, load_samples(point.data, point.seed), group


def _probe(name: str, n: int, repeat: int) -> ProbeRecord:
    point, samples, group = _opened(name)
    return run_probe(point, samples, n, repeat, None, group, Watch())


def _row(task: tuple[str, int, int]) -> Row:
    name, n, repeat = task
    probe = _probe(name, n, repeat)
    point, _, _ = _opened(name)
    per_epoch = probe.steps / probe.epochs
    allowed = point.training.epochs or (point.training.steps or 0) / per_epoch
    at = np.ceil(np.arange(1, LOOKS + 1) / LOOKS * allowed).astype(int) - 1
    at = at[at < probe.epochs]
    return Row(
        n=n,
        repeat=repeat,
        verdict=probe.verdict,
        n_errors=probe.n_errors,
        epochs=probe.epochs,
        cost=probe.cost,
        full_cost=round(allowed * n),
        errors=probe.error_curve[at],
        losses=probe.loss_curve[at].astype(np.float16),
    )


def _pilot(name: str) -> tuple[int, int]:
    """Return the EMC of the search in the model's spec, and the largest n there is."""
    point, samples, _ = _opened(name)
    history = []
    while not isinstance(step := advance(point.search, samples.n_limit, history), Estimate):
        history += history_of(_probe(name, n, repeat) for n, repeat in step.probes)
    return step.emc, samples.n_limit


def record(name: str, pool: ProcessPoolExecutor) -> None:
    """Measure one model's table and write it."""
    emc, n_limit = pool.submit(_pilot, name).result()
    seeds = {round(emc * f): NEAR_SEEDS for f in NEAR}
    seeds |= {round(emc * f): FAR_SEEDS for f in FAR}
    tasks = [
        (name, n, PILOT + repeat)
        for n in sorted(seeds)
        if 2 <= n <= n_limit
        for repeat in range(seeds[n])
    ]
    rows = list(pool.map(_row, tasks, chunksize=4))
    curves = {key: np.zeros((len(rows), LOOKS), np.float32) for key in ("errors", "losses")}
    for i, row in enumerate(rows):
        for key, curve in curves.items():
            values = getattr(row, key)
            curve[i, : len(values)] = values
    plain = ("n", "repeat", "n_errors", "epochs", "cost", "full_cost")
    RECORDED.mkdir(exist_ok=True)
    np.savez_compressed(
        RECORDED / f"{name}.npz",
        verdict=np.array([row.verdict for row in rows]),
        looks=np.array([len(row.errors) for row in rows], np.int16),
        errors=curves["errors"].astype(np.uint16),
        losses=curves["losses"].astype(np.float16),
        allow_pickle=False,
        **{key: np.array([getattr(row, key) for row in rows], np.int64) for key in plain},
    )


def main() -> None:
    names = sys.argv[1:] or sorted(path.stem for path in MODELS.glob("*.yaml"))
    with ProcessPoolExecutor(2) as pool:
        for name in names:
            if not (RECORDED / f"{name}.npz").exists():
                record(name, pool)
                print(f"{name}: recorded", flush=True)


if __name__ == "__main__":
    main()
