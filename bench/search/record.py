"""Record training runs of the models in ``models/``, on which searches are replayed.

Usage: FLEXHPC_DATA=FOLDER python -m bench.search.record [MODEL ...]
FOLDER contains Covertype and the credit data (docs/data.md). Takes three hours of one core.

Each model is trained many times at each n near its EMC, where the fit curve falls, and a few times
at n far from it, where searches start. A model that tunes a key is trained at fewer n for each arm.
Writes one file per model to ``recorded/``; existing files are not replaced.
"""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from flexhpc.config import Point, load_points
from flexhpc.data import Samples, load_samples
from flexhpc.measuring.probe import choose_device, run_probe
from flexhpc.search import Estimate, Probe, ProbeResult, advance
from flexhpc.store import ProbeRecord, history_of
from flexhpc.training import Callbacks, Group

HERE = Path(__file__).parent
MODELS, RECORDED = HERE / "models", HERE / "recorded"
PILOT = 1_000_000
"""First ``repeat`` of the recorded probes, so that they differ from those of the pilot search."""


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """The recorded n, as multiples of a pilot search's EMC, and the training runs at each n."""

    near: np.ndarray
    far: np.ndarray
    near_seeds: int
    far_seeds: int


ALONE = Ladder(
    near=np.geomspace(1 / 2.4, 2.4, 15),
    far=np.array([1 / 16, 1 / 10, 1 / 6, 1 / 4, 1 / 3, 3.0, 4.0, 6.0]),
    near_seeds=32,
    far_seeds=10,
)
OF_ARMS = Ladder(
    near=np.geomspace(1 / 2.4, 2.4, 9),
    far=np.array([1 / 10, 1 / 4, 4.0]),
    near_seeds=48,
    far_seeds=8,
)


@cache
def _opened(name: str) -> tuple[Point, Samples, Group]:
    group = Group(choose_device(threads=1))
    _, (point,) = load_points(MODELS / f"{name}.yaml")
    return point, load_samples(point.data, point.seed), group


def _probe(name: str, probe: Probe) -> ProbeRecord:
    point, samples, group = _opened(name)
    return run_probe(point, samples, probe, None, group, Callbacks())


def _row(task: tuple[str, Probe]) -> dict[str, int | str]:
    """Return the recorded fields of a training run; see :class:`bench.search.tables.Table`."""
    name, request = task
    probe = _probe(name, request)
    training = _opened(name)[0].at(request.arm).training
    per_epoch = probe.steps / probe.epochs
    max_epochs = training.epochs or (training.steps or 0) / per_epoch
    keys = ("n", "repeat", "verdict", "n_errors", "epochs", "cost")
    row = {key: getattr(probe, key) for key in keys}
    return row | {"arm": request.arm, "full_cost": round(max_epochs * probe.n)}


def _pilot(name: str, arm: int) -> tuple[int, int]:
    """Measure the EMC of one arm; return it and the largest available n."""
    point, samples, _ = _opened(name)
    history: list[ProbeResult] = []
    while not isinstance(step := advance(point.search, samples.n_limit, history), Estimate):
        probes = [replace(_probe(name, Probe(p.n, p.repeat, arm)), arm=0) for p in step]
        history += history_of(probes, point.training)
    return max(step.emc, 2), samples.n_limit


def record(name: str, pool: ProcessPoolExecutor) -> None:
    """Record the training runs of a model in a file."""
    arms = range(len(_opened(name)[0].arms))
    ladder = ALONE if len(arms) == 1 else OF_ARMS
    tasks = []
    for arm, (emc, n_limit) in zip(arms, pool.map(_pilot, [name] * len(arms), arms), strict=True):
        seeds = {round(emc * f): ladder.near_seeds for f in ladder.near}
        seeds |= {round(emc * f): ladder.far_seeds for f in ladder.far}
        tasks += [
            (name, Probe(n, PILOT + repeat, arm))
            for n in sorted(seeds)
            if 2 <= n <= n_limit
            for repeat in range(seeds[n])
        ]
    rows = list(pool.map(_row, tasks, chunksize=4))
    RECORDED.mkdir(exist_ok=True)
    np.savez_compressed(
        RECORDED / f"{name}.npz",
        allow_pickle=False,
        **{key: np.array([row[key] for row in rows]) for key in rows[0]},
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
