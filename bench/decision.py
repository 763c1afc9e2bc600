"""Simulate sweeps that end when their comparisons are decided: wrong verdicts and cost.

Usage: python -m bench.decision [--sweeps 1000] [--searches 60] [--ratio 1.25 ...]

Searches are replayed on training runs that are resampled from the records of bench/search. A
simulated sweep has three sizes, 2 to 5 values of the compared key, and listed seeds 0 to 2. Ratios
scatter by 5 to 15 % between seeds. Each point gets a replayed search, whose likelihood is shifted
to the EMC of the point. In half of the sweeps, the baseline point with the largest size and seed 0
is censored. Prints the table of docs/comparing.md.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from bench.common import markdown_head, markdown_row
from bench.search.replay import clear_cache, draw_start
from bench.search.worlds import MODELS, RecordedWorld, true_emc
from flexhpc.analysis import decision, effect
from flexhpc.analysis.likelihood import LOG_EMC, STEP, likelihood_of
from flexhpc.config import Point, load_points
from flexhpc.config.sections.compare import Compare
from flexhpc.search import Estimate, next_probes
from flexhpc.search.history import Floats
from flexhpc.store import Header
from flexhpc.store.record import PointRecord, ProbeSummary, to_history
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
class ReplayedSearch:
    """Probes, estimates and likelihoods of a replayed search.

    Attributes:
        record: the probes, and the estimates at the coarse tolerance and at the tolerance of the
            spec.
        likelihoods: likelihood of log EMC, shape (cells,), by number of probes.
        log_emc: log of the true EMC.
    """

    record: PointRecord
    likelihoods: dict[int, Floats]
    log_emc: float

    def likelihood_at(self, log_emc: float, probes: int) -> Floats:
        """Return the likelihood after ``probes`` probes, shifted to a point with another EMC."""
        cells = round((log_emc - self.log_emc) / STEP)
        return self.likelihoods[probes][
            np.clip(np.arange(len(LOG_EMC)) - cells, 0, len(LOG_EMC) - 1)
        ]


def replay(point: Point, model: str, censored: bool, seed: int) -> ReplayedSearch:
    """Replay a search to the coarse tolerance, and then to the tolerance of the spec."""
    rng = np.random.default_rng(seed)
    world = RecordedWorld(model)
    emc = true_emc(world)
    n_limit = round(emc / 1.3) if censored else world.n_limit
    header = Header(
        point=point.canonical, point_id=point.id, params=100, data_fingerprint="", n_total=n_limit,
        n_limit=n_limit, conflicts=0, unfittable=0, classes=10, bits=0, n_pool=n_limit,
        conflict_groups="[]",
    )  # fmt: skip
    record = PointRecord(header=header, probes=[], estimate=None, evaluation=None)
    likelihoods = {}
    for search in (point.search, point.with_precise_search().search):
        search = search.model_copy(update={"start": draw_start(emc, rng)})
        while True:
            clear_cache()
            step = next_probes(search, n_limit, to_history(record.probes, point.training))
            if isinstance(step, Estimate):
                break
            for probe in step:
                run = world.draw(probe.n, rng)
                record.probes.append(ProbeSummary(
                    n=probe.n, repeat=probe.repeat, seeds={}, verdict=run.verdict,
                    n_errors=int(run.verdict != "fit"), train_accuracy=0.0, loss=0.0, epochs=1,
                    steps=max(1, round(1000 * (run.share or 1.0))), cost=run.cost,
                    seconds=0.0, finished=0.0,
                ))  # fmt: skip
        count = len(record.probes)
        record = replace(record, estimates={**record.estimates, count: step})
        status = PointStatus(
            point=point, state="done", record=record.at_probe_count(count), estimate=step
        )
        likelihoods[count] = likelihood_of(status)
    return ReplayedSearch(record=record, likelihoods=likelihoods, log_emc=math.log(emc))


@lru_cache
def simulated_points(values: int) -> tuple[list[Point], Compare]:
    """Return the points of a sweep, including the optional points, and its comparison.

    Args:
        values: number of values of the compared key.
    """
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "decision.yaml"
        spec.write_text(SPEC.format(values=", ".join(VALUES[:values])))
        sweep, points = load_points(spec)
    return points, sweep.compare[0]


SEARCHES: dict[tuple[str, bool], list[ReplayedSearch]] = {}
"""Replayed searches by model and by whether the EMC is censored."""


def simulate(ratio: float, seed: int) -> dict[str, Any]:
    """Simulate a sweep; EMCs at all values but the first are larger by the factor ``ratio``.

    Returns:
        Whether a verdict is wrong, the verdicts, whether all comparisons are decided, and the cost
        (in whole training runs) of the simulated sweep and of a sweep of only the listed points.
    """
    rng = np.random.default_rng(seed)
    points, compare = simulated_points(int(rng.integers(2, 6)))
    model = MODELS[rng.integers(len(MODELS))]
    scatter, any_censored = rng.uniform(0.05, 0.15), bool(rng.random() < 0.5)
    searches: dict[str, ReplayedSearch] = {}
    log_emcs: dict[str, float] = {}
    for point in points:
        width = point.swept["model.width"]
        at_baseline = point.swept["model.activation"] == VALUES[0]
        censored = any_censored and width == 16 and at_baseline and point.seed == 0
        candidates = SEARCHES[model, censored]
        searches[point.id] = candidates[rng.integers(len(candidates))]
        log_emc = math.log(25 * width * (1.0 if at_baseline else ratio))
        log_emcs[point.id] = log_emc + rng.normal(0, scatter / math.sqrt(2))

    def likelihood(status: PointStatus) -> Floats:
        assert status.record is not None
        point_id = status.point.id
        return searches[point_id].likelihood_at(log_emcs[point_id], len(status.record.probes))

    setattr(effect, "likelihood_of", likelihood)  # noqa: B010
    records = {point_id: search.record for point_id, search in searches.items()}
    result = run_rounds(points, records, compare)
    correct = {"not decided"}
    if ratio > 1:
        correct.add("larger")
    if ratio <= 1.1:
        correct.add("the same within 10 %")
    verdicts = [compared.verdict for compared in result.effects]
    listed = [
        PointStatus(point=point, state="done", record=records[point.id])
        for point in points if not point.optional
    ]  # fmt: skip
    return {
        "ratio": ratio, "wrong": not correct.issuperset(verdicts), "verdicts": verdicts,
        "all_decided": result.ended_by == "decided", "cost": result.trainings,
        "fixed_cost": sum(map(decision.cost_in_trainings, listed)),
    }  # fmt: skip


def run_rounds(
    points: Sequence[Point], records: Mapping[str, PointRecord], compare: Compare
) -> decision.Decision:
    """Replay a sweep, round by round, until it ends.

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
            counts = list(record.estimates)
            record = record.at_probe_count(counts[-1 if result.next_is_precise else 0])
            statuses[status.point.id] = replace(
                status, state="done", record=record, estimate=record.estimate
            )


def markdown(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Format the results as a Markdown table, one row per ratio."""
    verdicts = ("larger", "the same", "not decided")
    yield markdown_head([
        "true ratio", "wrong", "larger", "same", "not decided", "all decided",
        "cost / fixed design",
    ])  # fmt: skip
    for ratio in dict.fromkeys(row["ratio"] for row in rows):
        of_ratio = [row for row in rows if row["ratio"] == ratio]
        of_values = [verdict for row in of_ratio for verdict in row["verdicts"]]
        shares = [np.mean([v.startswith(verdict) for v in of_values]) for verdict in verdicts]
        wrong, all_decided = (
            np.mean([row[key] for row in of_ratio]) for key in ("wrong", "all_decided")
        )
        cost = np.median([row["cost"] / row["fixed_cost"] for row in of_ratio])
        cells = [f"{share:.3f}" for share in (wrong, *shares, all_decided)]
        yield markdown_row([f"{ratio:g}", *cells, f"{cost:.2f}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweeps", type=int, default=1000, help="per ratio")
    parser.add_argument("--searches", type=int, default=60, help="replayed searches per model")
    parser.add_argument("--ratio", type=float, nargs="+", default=RATIOS)
    arguments = parser.parse_args()
    point = simulated_points(2)[0][0]
    with ProcessPoolExecutor(2) as pool:
        for model, censored in product(MODELS, (False, True)):
            count = max(1, arguments.searches // (6 if censored else 1))
            replays = pool.map(partial(replay, point, model, censored), range(count), chunksize=5)
            SEARCHES[model, censored] = list(replays)
    with ProcessPoolExecutor(2) as pool:  # forked, with the searches
        rows: list[dict[str, Any]] = []
        for ratio in arguments.ratio:
            seeds = [round(1e4 * ratio) + 10**6 * i for i in range(arguments.sweeps)]
            rows += pool.map(partial(simulate, ratio), seeds, chunksize=25)
            print("\n".join(markdown(rows)), flush=True)


if __name__ == "__main__":
    main()
