"""Simulated sweeps that end when their comparisons are decided: wrong verdicts and cost.

Usage: python -m bench.decision [--sweeps 1000] [--searches 60] [--ratio 1.25 ...]
       python -m bench.decision --findings 20

Searches are replayed on the recorded training runs of bench/search (resampled, so with their lapses
and widths). A simulated sweep has three sizes, 2 to 5 values of the compared key, listed seeds 0 to
2, and seeds that scatter by 5 to 15 %. Each of its points gets a replayed search, whose likelihood
is shifted to the EMC of the point. In half of the sweeps, the largest size at the baseline is
censored. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.findings.page import RECORDS
from bench.findings.records import load_records
from bench.search.replay import clear_cache, start_of
from bench.search.tables import MODELS, Table, middle
from flexhpc.analysis import decision, effect
from flexhpc.analysis.comparison import compare_as_specified, requested_comparisons
from flexhpc.analysis.likelihood import LOG_EMC, STEP, likelihood_of
from flexhpc.config import Point, checked
from flexhpc.config.sections.compare import Compare, Decide
from flexhpc.search import Estimate, advance
from flexhpc.search.evidence import Floats
from flexhpc.store import Header
from flexhpc.store.record import PointRecord, ProbeSummary, history_of
from flexhpc.store.status import PointStatus

RATIOS = (1.0, 1.05, 1.1, 1.25, 1.5, 2.0)
VALUES = ("relu", "tanh", "gelu", "leaky_relu", "identity")
SPEC = """\
name: decision
fixed:
  data: {{source: fashion_mnist, labels: random}}
  model: {{family: mlp, depth: 1}}
  training: {{optimizer: adam, steps: 1000}}
  search: {{policy: bayes, start: 16, tolerance: 0.2}}
grid:
  model.activation: [{values}]
  model.width: [4, 8, 16]
  seed: [0, 1, 2]
compare: {{by: model.activation, decide: {{max_seeds: 12}}}}
"""


@dataclass(frozen=True, kw_only=True)
class Search:
    """A replayed search.

    Attributes:
        record: its probes, and its estimates at the coarse tolerance and at the tolerance of the
            spec.
        likelihoods: likelihood of log EMC by number of probes, (cells,).
        log_truth: log of the true EMC.
    """

    record: PointRecord
    likelihoods: dict[int, Floats]
    log_truth: float

    def shifted(self, probes: int, log_emc: float) -> Floats:
        """Return the likelihood that the same search of a point with another EMC would have."""
        cells = round((log_emc - self.log_truth) / STEP)
        return self.likelihoods[probes][
            np.clip(np.arange(len(LOG_EMC)) - cells, 0, len(LOG_EMC) - 1)
        ]


def replay(point: Point, model: str, censored: bool, seed: int) -> Search:
    """Replay a search, first to the coarse tolerance."""
    rng = np.random.default_rng(seed)
    world = Table(model)
    truth = middle(world)
    n_limit = round(truth / 1.3) if censored else world.n_limit
    header = Header(
        point=point.canonical, point_id=point.id, params=100, data_fingerprint="", n_total=n_limit,
        n_limit=n_limit, conflicts=0, unfittable=0, classes=10, bits=0, n_pool=n_limit,
        conflict_groups="[]",
    )  # fmt: skip
    record = PointRecord(header=header, probes=[], estimate=None, evaluation=None)
    likelihoods = {}
    for search in (point.search, point.precise().search):
        search = search.model_copy(update={"start": start_of(truth, rng)})
        while True:
            clear_cache()
            step = advance(search, n_limit, history_of(record.probes, point.training))
            if isinstance(step, Estimate):
                break
            for probe in step:
                training = world.draw(probe.n, rng)
                record.probes.append(ProbeSummary(
                    n=probe.n, repeat=probe.repeat, seeds={}, verdict=training.verdict,
                    n_errors=training.n_errors, train_accuracy=0.0, loss=0.0, epochs=1,
                    steps=max(1, round(1000 * (training.share or 1.0))), cost=training.cost,
                    seconds=0.0, finished=0.0, loss_curve=np.zeros(0, np.float32),
                ))  # fmt: skip
        count = len(record.probes)
        record = replace(record, estimates={**record.estimates, count: step})
        status = PointStatus(point=point, state="done", record=record.after(count), estimate=step)
        likelihoods[count] = likelihood_of(status)
    return Search(record=record, likelihoods=likelihoods, log_truth=math.log(truth))


@lru_cache
def points_of(values: int) -> tuple[list[Point], Compare]:
    """Return the points of the simulated sweep, including the optional ones."""
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "decision.yaml"
        spec.write_text(SPEC.format(values=", ".join(VALUES[:values])))
        sweep, points = checked(spec)
    return points, sweep.compare[0]


SEARCHES: dict[tuple[str, bool], list[Search]] = {}
"""Replayed searches of each model, without and with an EMC that is censored."""


def simulate(ratio: float, seed: int) -> dict[str, Any]:
    """Simulate a sweep in which all values but the first have EMCs larger by ``ratio``.

    Returns:
        Whether a verdict is wrong, the verdicts, cost and fixed cost in whole training runs.
    """
    rng = np.random.default_rng(seed)
    points, compare = points_of(int(rng.integers(2, 6)))
    model = MODELS[rng.integers(len(MODELS))]
    scatter, has_bound = rng.uniform(0.05, 0.15), bool(rng.random() < 0.5)
    chosen: dict[str, Search] = {}
    log_emcs: dict[str, float] = {}
    for point in points:
        larger = point.swept["model.activation"] != VALUES[0]
        bound = (
            has_bound and point.swept["model.width"] == 16
            and point.swept["model.activation"] == VALUES[0] and point.seed == 0
        )  # fmt: skip
        candidates = SEARCHES[model, bound]
        chosen[point.id] = candidates[rng.integers(len(candidates))]
        log_emc = math.log(25 * point.swept["model.width"] * (ratio if larger else 1.0))
        log_emcs[point.id] = log_emc + rng.normal(0, scatter / math.sqrt(2))

    def likelihood(status: PointStatus, factor: float) -> Floats:
        assert status.record is not None
        assert factor == 1
        point_id = status.point.id
        return chosen[point_id].shifted(len(status.record.probes), log_emcs[point_id])

    setattr(effect, "likelihood_at_budget", likelihood)  # noqa: B010
    records = {point_id: search.record for point_id, search in chosen.items()}
    result = run_rounds(points, records, compare)
    right = {"not decided", *(["larger"] if ratio > 1 else ["the same within 10 %"])}
    right |= {"the same within 10 %"} if ratio <= 1.1 else set()
    verdicts = [compared.verdict for compared in result.effects]
    return {
        "ratio": ratio, "wrong": not right.issuperset(verdicts), "verdicts": verdicts,
        "cost": result.trainings, "all": result.ended_by == "decided",
        "fixed": cost_of([p for p in points if not p.optional], records),
    }  # fmt: skip


def run_rounds(
    points: Sequence[Point], records: Mapping[str, PointRecord], compare: Compare
) -> decision.Decision:
    """Replay the rounds of a sweep.

    Args:
        points: all points, including the optional ones.
        records: for each point id, the record with a coarse and a precise estimate.
        compare: the comparisons.
    """
    evaluated: dict[Any, list[effect.Effect]] = {}

    def effects_of(
        measured: list[PointStatus], compare: Compare, **options: Any
    ) -> list[effect.Effect]:
        key = tuple((s.point.id, len(s.record.probes) if s.record else 0) for s in measured)
        if key not in evaluated:  # decide() evaluates all previous rounds again
            evaluated[key] = effect.effects_of(measured, compare, **options)
        return evaluated[key]

    setattr(decision, "effects_of", effects_of)  # noqa: B010
    statuses = {point.id: PointStatus(point=point, state="waiting") for point in points}
    while True:
        result = decision.decide(list(statuses.values()), compare)
        if result.ended_by is not None:
            return result
        for status in result.next_points:
            record = records[status.point.id]
            record = record.after(list(record.estimates)[-1 if result.precise else 0])
            statuses[status.point.id] = replace(
                status, state="done", record=record, estimate=record.estimate
            )


def cost_of(points: Sequence[Point], records: Mapping[str, PointRecord]) -> float:
    """Return the cost of points at the tolerance of the spec, in whole training runs."""
    statuses = [PointStatus(point=p, state="done", record=records[p.id]) for p in points]
    return sum(map(decision.cost_in_trainings, statuses))


def with_coarse_estimate(status: PointStatus) -> PointRecord:
    """Return the record of a finished point with the estimate that a coarse search would give."""
    record, point = status.record, status.point
    assert record is not None
    assert record.estimate is not None
    history = history_of(record.probes, point.training)
    estimates = {len(history): record.estimate}
    for count in range(1, len(history)):
        step = advance(
            point.search.coarse(), record.header.n_limit, history[:count], point.coordinates,
            point.training.doubling,
        )  # fmt: skip
        if isinstance(step, Estimate):
            estimates = {count: step, **estimates}
            break
    return replace(record, estimates=estimates)


def replay_finding(path: Path, orders: int) -> Iterator[str]:
    """Replay a stored sweep of docs/findings.md with its seeds in random orders.

    The first two seeds are listed, and the others are added as needed. Yields the rows of a table.
    """
    with tempfile.TemporaryDirectory() as scratch:
        statuses, spec = load_records(path, Path(scratch))
    (compare,) = requested_comparisons(spec)
    fixed = {e.key: e.verdict for e in compare_as_specified(statuses, [spec]).effects}
    seeds = list(dict.fromkeys(status.point.seed for status in statuses))
    compare = compare.model_copy(update={"decide": Decide(max_seeds=len(seeds))})
    records = {status.point.id: with_coarse_estimate(status) for status in statuses}
    total = cost_of([status.point for status in statuses], records)
    costs, agree, undecided, opposite = [], 0, 0, 0
    for number in range(orders):
        order = dict(zip(seeds, np.random.default_rng(number).permutation(len(seeds)), strict=True))
        points = [
            replace(
                s.point, seed=int(order[s.point.seed]), optional=bool(order[s.point.seed] >= 2),
                refined=s.point.search, search=s.point.search.coarse(),
            )
            for s in sorted(statuses, key=lambda s: order[s.point.seed])
        ]  # fmt: skip
        result = run_rounds(points, records, compare)
        costs.append(result.trainings / total)
        verdicts = {e.key: e.verdict for e in result.effects}
        agree += sum(verdicts[key] == verdict for key, verdict in fixed.items())
        undecided += sum(v == "not decided" != fixed[key] for key, v in verdicts.items())
        opposite += sum({"larger", "smaller"} == {v, fixed[key]} for key, v in verdicts.items())
    count = len(fixed) * orders
    yield (
        f"| {path.name.split('.')[0]} | {len(statuses)} | {len(fixed)} | {agree / count:.2f} "
        f"| {undecided / count:.2f} | {opposite / count:.2f} | {np.median(costs):.2f} "
        f"| {max(costs):.2f} |"
    )


def markdown(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Format the results, one line per ratio."""
    yield "| true ratio | wrong | larger | same | not decided | all decided | cost / fixed design |"
    yield "|---|---|---|---|---|---|---|"
    for ratio in dict.fromkeys(row["ratio"] for row in rows):
        of_ratio = [row for row in rows if row["ratio"] == ratio]
        verdicts = [verdict for row in of_ratio for verdict in row["verdicts"]]

        def share(verdict: str, verdicts: list[str] = verdicts) -> str:
            return f"{sum(v.startswith(verdict) for v in verdicts) / len(verdicts):.3f}"

        cost = np.median([row["cost"] / row["fixed"] for row in of_ratio])
        yield (
            f"| {ratio:g} | {np.mean([row['wrong'] for row in of_ratio]):.3f} | {share('larger')} "
            f"| {share('the same')} | {share('not decided')} "
            f"| {np.mean([row['all'] for row in of_ratio]):.3f} | {cost:.2f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweeps", type=int, default=1000, help="per ratio")
    parser.add_argument("--searches", type=int, default=60, help="replayed searches per model")
    parser.add_argument("--ratio", type=float, nargs="+", default=RATIOS)
    parser.add_argument("--findings", type=int, metavar="ORDERS", help="replay the findings")
    arguments = parser.parse_args()
    if arguments.findings:
        names = "sweep, points, comparisons, same verdict, undecided, opposite, median cost, worst"
        print(f"| {names.replace(', ', ' | ')} |\n|{'---|' * (names.count(',') + 1)}")
        for path in sorted(RECORDS.glob("*.json.xz")):
            print("\n".join(replay_finding(path, arguments.findings)), flush=True)
        return
    point = points_of(2)[0][0]
    kinds = [(model, censored) for model in MODELS for censored in (False, True)]
    with ProcessPoolExecutor(2) as pool:
        for model, censored in kinds:
            count = max(1, arguments.searches // (6 if censored else 1))
            made = pool.map(partial(replay, point, model, censored), range(count), chunksize=5)
            SEARCHES[model, censored] = list(made)
    with ProcessPoolExecutor(2) as pool:  # forked, with the searches
        rows: list[dict[str, Any]] = []
        for ratio in arguments.ratio:
            seeds = [round(1e4 * ratio) + 10**6 * i for i in range(arguments.sweeps)]
            rows += pool.map(partial(simulate, ratio), seeds, chunksize=25)
            print("\n".join(markdown(rows)), flush=True)


if __name__ == "__main__":
    main()
