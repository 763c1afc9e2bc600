"""Comparisons that decide when a sweep ends: rounds of points, error rates, verdicts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from flexhpc.analysis.decision import Decision, decide, rounds_of, significance_levels
from flexhpc.api.runs import make_run
from flexhpc.config import Point
from flexhpc.config.sections.compare import Compare, Decide
from flexhpc.search import estimate_so_far
from flexhpc.store import RunFolder
from flexhpc.store.record import to_history
from flexhpc.store.status import PointStatus
from tests.analysis.builders import ACTIVATIONS, points_of, simulate_point

COARSE_PROBES = 8


def comparison(**settings: float) -> Compare:
    """Return a comparison of activations that ends a sweep, by default after four seeds."""
    return Compare(by="model.activation", decide=Decide(**{"max_seeds": 4, **settings}))


DECIDE = comparison()


@pytest.fixture
def points(tmp_path: Path) -> list[Point]:
    compare = "compare: {by: model.activation, decide: {max_seeds: 4}}\n"
    return points_of(tmp_path, f"{ACTIVATIONS}  seed: [0, 1]\n{compare}")


def measure(point: Point, ratio: float, *, precise: bool) -> PointStatus:
    """Simulate the search of a point, to the coarse tolerance or to that of the spec.

    Args:
        ratio: EMC with tanh, relative to that with relu.
    """
    emc = 25 * point.swept["model.width"]
    emc *= ratio if point.swept["model.activation"] == "tanh" else 1
    status = simulate_point(point, emc, np.random.default_rng(point.index))
    probes = status.record.probes[::-1]
    searches = {COARSE_PROBES: point.search}
    if precise:
        searches[len(probes)] = point.with_precise_search().search
    estimates = {}
    for count, search in searches.items():
        history = to_history(probes[:count], point.training)
        estimates[count] = estimate_so_far(search, 60_000, history, ended_by="tolerance")
    record = replace(status.record, probes=probes, estimates=estimates)
    record = record.at_probe_count(max(searches))
    return PointStatus(point=point, state="done", record=record, estimate=record.estimate)


def measure_listed(
    points: list[Point], ratio: float, *, precise: bool = False, failed: Sequence[Point] = ()
) -> list[PointStatus]:
    """Simulate the points of the seeds in the spec, some of which failed."""
    return [
        PointStatus(point=p, state="failed") if p in failed else measure(p, ratio, precise=precise)
        for p in points if not p.optional
    ]  # fmt: skip


def waiting(point: Point) -> PointStatus:
    return PointStatus(point=point, state="waiting")


def run_rounds(
    points: list[Point], ratio: float, compare: Compare = DECIDE
) -> tuple[list[Decision], list[PointStatus]]:
    """Run all rounds; return the decision after each round, and the last statuses."""
    statuses = {point.id: waiting(point) for point in points}
    decisions = [decide(list(statuses.values()), compare)]
    while decisions[-1].next_points:
        for status in decisions[-1].next_points:
            precise = decisions[-1].next_is_precise
            statuses[status.point.id] = measure(status.point, ratio, precise=precise)
        decisions.append(decide(list(statuses.values()), compare))
    return decisions, list(statuses.values())


@pytest.mark.parametrize(("listed", "maximum"), [(1, 1), (2, 4), (3, 12), (5, 40)])
def test_rounds_spend_the_error_rate(listed: int, maximum: int) -> None:
    """Of 500,000 simulated tests without an effect, one in ten crosses a boundary."""
    rounds = tuple(rounds_of(listed, maximum))
    assert [round_.coarse for round_ in rounds] == [True] + [False] * (len(rounds) - 1)
    seeds = [round_.seeds for round_ in rounds]
    assert seeds[:2] == [listed, listed]
    assert seeds[1:] == sorted(set(seeds))
    assert seeds[-1] == maximum
    times = np.array([0.3 * listed, *seeds[1:]]) / maximum
    steps = np.random.default_rng(0).normal(size=(500_000, len(rounds)))
    scores = np.cumsum(steps * np.sqrt(np.diff(times, prepend=0)), axis=1) / np.sqrt(times)
    crossed = scores > norm.isf(significance_levels(0.1, rounds))
    assert crossed.any(axis=1).mean() == pytest.approx(0.1, rel=0.05)
    first = (crossed.argmax(axis=1) == 0) & crossed[:, 0]
    assert first.mean() == pytest.approx(0.1 * times[0], rel=0.1)


def test_rounds_add_precision_and_then_seeds(points: list[Point]) -> None:
    decisions, _ = run_rounds(points, 1.1)
    rounds = [
        (d.next_is_precise, sorted({s.point.seed for s in d.next_points}), len(d.next_points))
        for d in decisions
    ]
    assert rounds == [
        (False, [0, 1], 12), (True, [0, 1], 12), (True, [2], 6), (True, [3], 6), (True, [], 0),
    ]  # fmt: skip
    assert [len(d.later_points) for d in decisions] == [0, 6, 6, 0, 0]
    assert decisions[-1].ended_by == "max_seeds"
    assert [effect.verdict for effect in decisions[-1].effects] == ["not decided"]
    assert [effect.pairs for effect in decisions[-1].effects] == [12]
    assert "compare.decide.max_seeds is too small for the others" in decisions[-1].text


def test_comparison_that_needs_many_more_pairs_is_abandoned(points: list[Point]) -> None:
    decisions, statuses = run_rounds(points, 1.0)
    assert (decisions[-1].ended_by, decisions[-1].rounds) == ("max_seeds", 2)
    assert decisions[-1].effects[0].more_pairs > 5 * 12
    assert {s.state for s in statuses if s.point.optional} == {"waiting"}


def test_comparison_that_many_seeds_can_decide_is_continued(points: list[Point]) -> None:
    """With 3 sizes, 1,000 seeds give 3,000 pairs."""
    listed = measure_listed(points, 0.95, precise=True)
    decision = decide(listed, comparison(max_seeds=1000, margin=0.01))
    assert 1000 < decision.effects[0].more_pairs < 5 * 3000
    assert (decision.rounds, decision.ended_by) == (2, None)


def test_verdict_does_not_depend_on_later_training_runs(points: list[Point]) -> None:
    (_, decision), statuses = run_rounds(points, 4.0)
    assert (decision.ended_by, decision.rounds, decision.next_points) == ("decided", 1, [])
    assert [effect.verdict for effect in decision.effects] == ["larger"]
    assert decision.trainings < decision.fixed_cost
    assert "decided at a cost of" in decision.text
    cost = f"with {decision.max_seeds} seeds (max_seeds) would cost about {decision.fixed_cost:.0f}"
    assert cost in decision.text
    precise = decide([measure(s.point, 4.0, precise=True) for s in statuses], DECIDE)
    assert (precise.effects, precise.rounds, precise.ended_by) == (decision.effects, 1, "decided")
    assert precise.trainings > decision.trainings


def test_max_cost_ends_a_sweep_before_a_round(points: list[Point]) -> None:
    unlimited, statuses = run_rounds(points, 1.1)
    max_cost = unlimited[3].trainings
    decisions, _ = run_rounds(points, 1.1, comparison(max_cost=max_cost))
    assert decisions[-1].ended_by == "max_cost"
    assert unlimited[1].trainings < decisions[-1].trainings <= max_cost
    compare = comparison(max_cost=unlimited[2].trainings * 1.01)
    not_started = [s if s.point.seed < 2 else waiting(s.point) for s in statuses]
    assert decide(not_started, compare).ended_by == "max_cost"
    first = next(s for s in statuses if s.point.seed == 2)
    started = [first if s.point is first.point else s for s in not_started]
    assert len(decide(started, compare).next_points) == 5, "a round that has started is finished"


def test_failed_points_are_omitted(points: list[Point]) -> None:
    decision = decide(measure_listed(points, 4.0, precise=True, failed=points[:1]), DECIDE)
    assert decision.ended_by == "decided"
    assert [(e.pairs, e.unpaired) for e in decision.effects] == [(5, 1)]


def test_comparison_whose_points_failed_is_abandoned(points: list[Point]) -> None:
    tanh = [p for p in points if p.swept["model.activation"] == "tanh"]
    decision = decide(measure_listed(points, 1.0, failed=tanh), DECIDE)
    assert (decision.ended_by, decision.next_points, decision.effects) == ("max_seeds", [], [])
    assert decision.text.startswith("0 of 1 comparisons with compare.decide decided")


def test_single_pair_gives_no_verdict(points: list[Point]) -> None:
    """The ratio of 4 may be due to the seed."""
    by_width = Compare(by="model.activation", within=["model.width"], decide=Decide(max_seeds=4))
    failed = [p for p in points if p.seed == 1]
    decision = decide(measure_listed(points, 4.0, failed=failed), by_width)
    assert [effect.pairs for effect in decision.effects] == [1, 1, 1]
    assert [effect.verdict for effect in decision.effects] == ["not decided"] * 3
    precise = measure_listed(points, 4.0, precise=True, failed=failed)
    added = [waiting(p) for p in points if p.optional]
    next_points = decide([*precise, *added], by_width).next_points
    assert {s.point.seed for s in next_points} == {2}, "no further seed is added"


def test_round_without_all_of_its_points_is_not_evaluated(points: list[Point]) -> None:
    """``results`` omits optional points that were not started."""
    _, statuses = run_rounds(points, 1.1)
    first = next(s for s in statuses if s.point.seed == 2)
    decision = decide([s for s in statuses if s.point.seed < 2 or s is first], DECIDE)
    assert (decision.rounds, decision.ended_by, decision.next_points) == (2, None, [])
    assert [effect.pairs for effect in decision.effects] == [6]


def test_compare_in_python_applies_the_rule(points: list[Point], tmp_path: Path) -> None:
    """With the settings of the spec, or with default values if they are requested."""
    compare = comparison(margin=0.9, error=0.2)
    decisions, statuses = run_rounds(points, 1.0, compare)
    assert [effect.verdict for effect in decisions[-1].effects] == ["the same within 90 %"]
    folder = RunFolder(tmp_path)
    run = make_run(folder, statuses)
    folder.spec.write_text("name: test\n")
    once, repeated = (run.compare("model.activation", decide=rule) for rule in (False, True))
    assert [*once.verdict, *repeated.verdict] == ["not decided"] * 2
    assert repeated.more_pairs[0] > once.more_pairs[0], "later rounds need a part of the error rate"
    values = compare.decide.model_dump_json()
    folder.spec.write_text(f"compare:\n- {{by: model.activation, decide: {values}}}\n")
    assert [*run.compare("model.activation").verdict] == ["the same within 90 %"]


@pytest.mark.parametrize("ratio", ["1", "2"])
def test_simulated_sweeps_give_no_wrong_verdict(ratio: str) -> None:
    command = ["-m", "bench.decision", "--sweeps", "2", "--searches", "1", "--ratio", ratio]
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=True, timeout=600
    )
    row = done.stdout.splitlines()[-1].split("|")
    assert float(row[2]) == 0, "a wrong verdict"
    assert (float(row[3]) == 1) == (ratio == "2")
