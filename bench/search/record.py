"""Record training runs of the models in ``models/``, on which searches are replayed.

Usage: FLEXHPC_DATA=FOLDER python -m bench.search.record [MODEL ...]
FOLDER contains Covertype and the credit data (docs/data.md). Takes three hours of one core.

Each model is trained many times at each n near its EMC, where the fit curve falls, and a few times
at n far from it, where searches start. A model that tunes a key is trained at fewer n for each arm.
Writes one file per model to ``recorded/``; existing files are not replaced.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np

from flexhpc.config import Point, load_points
from flexhpc.data import Samples, load_samples
from flexhpc.measuring.probe import choose_device, run_probe
from flexhpc.search import Estimate, Probe, ProbeResult, next_probes
from flexhpc.store import to_history
from flexhpc.training import Callbacks, Group

HERE = Path(__file__).parent
MODELS, RECORDED = HERE / "models", HERE / "recorded"
FIRST_REPEAT = 1_000_000
"""First ``repeat`` of recorded probes; large, so that their seeds differ from the pilot search."""

Ladder = tuple[tuple[Iterable[float], int], ...]
"""Recorded n, as multiples of a pilot search's EMC, and the number of seeds at each n."""
SINGLE_ARM: Ladder = (
    (np.geomspace(1 / 2.4, 2.4, 15), 32),
    ((1 / 16, 1 / 10, 1 / 6, 1 / 4, 1 / 3, 3.0, 4.0, 6.0), 10),
)
SEVERAL_ARMS: Ladder = ((np.geomspace(1 / 2.4, 2.4, 9), 48), ((1 / 10, 1 / 4, 4.0), 8))


def pilot_emc(point: Point, samples: Samples, group: Group, arm: int = 0) -> int:
    """Measure the EMC of one arm of a point by a search."""
    history: list[ProbeResult] = []
    while not isinstance(step := next_probes(point.search, samples.n_limit, history), Estimate):
        for n, repeat, *_ in step:
            probe = run_probe(point, samples, Probe(n, repeat, arm), None, group, Callbacks())
            history += to_history([replace(probe, arm=0)], point.training)
    return step.emc


@cache
def _load(name: str) -> tuple[Point, Samples, Group]:
    group = Group(choose_device(threads=1))
    _, (point,) = load_points(MODELS / f"{name}.yaml")
    return point, load_samples(point.data, point.seed), group


def _train_once(task: tuple[str, Probe]) -> dict[str, int | str]:
    """Train once; return the fields that :class:`bench.search.worlds.RecordedWorld` reads."""
    name, probe = task
    point, samples, group = _load(name)
    record = run_probe(point, samples, probe, None, group, Callbacks())
    training = point.at_arm(probe.arm).training
    steps_per_epoch = record.steps / record.epochs
    max_epochs = training.epochs or (training.steps or 0) / steps_per_epoch
    keys = ("n", "repeat", "verdict", "n_errors", "epochs", "cost")
    row = {key: getattr(record, key) for key in keys}
    return row | {"arm": probe.arm, "full_cost": round(max_epochs * probe.n)}


def _pilot_emc(name: str, arm: int) -> int:
    return max(pilot_emc(*_load(name), arm), 2)


def record(name: str, pool: ProcessPoolExecutor) -> None:
    point, samples, _ = _load(name)
    arms = range(len(point.arms))
    ladder = SINGLE_ARM if len(arms) == 1 else SEVERAL_ARMS
    tasks = []
    emcs = pool.map(partial(_pilot_emc, name), arms)
    for arm, emc in zip(arms, emcs, strict=True):
        seeds: dict[int, int] = {}
        for multiples, count in ladder:
            seeds |= {round(emc * multiple): count for multiple in multiples}
        tasks += [
            (name, Probe(n, FIRST_REPEAT + repeat, arm))
            for n in sorted(seeds)
            if 2 <= n <= samples.n_limit
            for repeat in range(seeds[n])
        ]
    rows = list(pool.map(_train_once, tasks, chunksize=4))
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
