"""Replay the sweeps of docs/findings.md as sweeps that end when their comparisons are decided.

Usage: python -m bench.findings.decisions [--orders 6]

Each stored sweep without ``decide`` is replayed with its seeds in random orders: two seeds are
listed, and the others are added as needed. The cost of a point is the cost of its stored search up
to the coarse tolerance or to the tolerance of the spec. Prints the cost and the verdicts of each
sweep, and the cost of the smallest constant number of seeds with as many equal verdicts. Takes six
minutes.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.common import markdown_head, markdown_row
from bench.decision import run_rounds
from bench.findings.page import RECORDS
from bench.findings.records import load_records
from flexhpc.analysis.comparison import compare_as_specified, requested_comparisons
from flexhpc.analysis.decision import EffectKey, cost_in_trainings
from flexhpc.config.sections.compare import Decide
from flexhpc.search import Estimate, next_probes
from flexhpc.store.record import PointRecord, to_history
from flexhpc.store.status import PointStatus

COLUMNS = (
    "sweep", "points", "comparisons", "same verdict", "not decided", "opposite verdict",
    "cost (median)", "cost (largest)", "cost, constant seeds",
)  # fmt: skip
LISTED_SEEDS = 2


def add_coarse_estimate(status: PointStatus) -> PointRecord:
    """Return a finished point's record, to which the estimate of a coarse search is added."""
    record, point = status.record, status.point
    assert record is not None
    assert record.estimate is not None
    history = to_history(record.probes, point.training)
    for count in range(1, len(history)):
        step = next_probes(
            point.search.with_coarse_tolerance(), record.header.n_limit, history[:count],
            point.arm_coordinates, point.training.doubling_settings,
        )  # fmt: skip
        if isinstance(step, Estimate):
            return replace(record, estimates={count: step, len(history): record.estimate})
    return replace(record, estimates={len(history): record.estimate})


def cost_of_fewest_seeds(statuses: list[PointStatus], spec: str, same: float) -> float:
    """Return the cost of the fewest seeds with which one test gives as many equal verdicts.

    Args:
        statuses: the points of a sweep, whose verdicts with all seeds are the reference.
        spec: path of the spec.
        same: fraction of the comparisons that must have the same verdict as with all seeds, in the
            mean over all subsets of a number of seeds.

    Returns:
        The median cost of the subsets with the smallest such number of seeds, as a fraction of the
        cost of all seeds.
    """

    def verdicts(chosen: list[PointStatus]) -> dict[EffectKey, str]:
        return {e.key: e.verdict for e in compare_as_specified(chosen, [spec]).effects}

    final = verdicts(statuses)
    seeds = list(dict.fromkeys(status.point.seed for status in statuses))
    for count in range(LISTED_SEEDS, len(seeds)):
        subsets = [
            [status for status in statuses if status.point.seed in subset]
            for subset in itertools.combinations(seeds, count)
        ]
        equal = [[v == final[key] for key, v in verdicts(s).items()] for s in subsets]
        if np.mean(equal) >= same:
            costs = [sum(map(cost_in_trainings, subset)) for subset in subsets]
            return float(np.median(costs)) / sum(map(cost_in_trainings, statuses))
    return 1.0


def replay_sweep(path: Path, orders: int) -> list[str]:
    """Replay a stored sweep; return its row of the table."""
    with tempfile.TemporaryDirectory() as scratch:
        statuses, spec = load_records(path, Path(scratch))
    (compare,) = requested_comparisons(spec)
    verdicts = {e.key: e.verdict for e in compare_as_specified(statuses, [spec]).effects}
    seeds = list(dict.fromkeys(status.point.seed for status in statuses))
    compare = compare.model_copy(update={"decide": Decide(max_seeds=len(seeds))})
    records = {status.point.id: add_coarse_estimate(status) for status in statuses}
    total_cost = sum(map(cost_in_trainings, statuses))
    costs, same, not_decided, opposite = [], 0, 0, 0
    for number in range(orders):
        order = dict(zip(seeds, np.random.default_rng(number).permutation(len(seeds)), strict=True))
        points = [
            replace(
                s.point, seed=int(order[s.point.seed]),
                optional=bool(order[s.point.seed] >= LISTED_SEEDS),
                precise_search=s.point.search, search=s.point.search.with_coarse_tolerance(),
            )
            for s in sorted(statuses, key=lambda s: order[s.point.seed])
        ]  # fmt: skip
        decision = run_rounds(points, records, compare)
        costs.append(decision.trainings / total_cost)
        for decided in decision.effects:
            pair = {decided.verdict, verdicts[decided.key]}
            same += len(pair) == 1
            not_decided += len(pair) == 2 and decided.verdict == "not decided"
            opposite += pair == {"larger", "smaller"}
    shares = [count / orders / len(verdicts) for count in (same, not_decided, opposite)]
    numbers = [*shares, np.median(costs), max(costs)]
    numbers.append(cost_of_fewest_seeds(statuses, spec, same=shares[0]))
    cells = [path.name.split(".")[0], str(len(statuses)), str(len(verdicts))]
    return [*cells, *(f"{number:.2f}" for number in numbers)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--orders", type=int, default=6, help="number of random orders of the seeds"
    )
    arguments = parser.parse_args()
    print(markdown_head(COLUMNS))
    for name in ("activations", "convergence", "families", "optimizers"):
        path = RECORDS / f"finding_{name}.json.xz"
        print(markdown_row(replay_sweep(path, arguments.orders)), flush=True)


if __name__ == "__main__":
    main()
