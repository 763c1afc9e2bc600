"""Comparisons at smaller budgets, on simulated training runs with times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flexhpc.analysis.comparison import compare_at_budgets, compare_points
from flexhpc.analysis.effect import Effect
from flexhpc.analysis.figures.budget import budget_figure
from flexhpc.analysis.figures.chart import Chart
from flexhpc.analysis.figures.ratios import ratio_budget_figure
from flexhpc.analysis.grouping import group_by
from flexhpc.config import Point
from flexhpc.config.sections.compare import Compare
from flexhpc.search import estimate_so_far
from flexhpc.store.record import to_history
from flexhpc.store.status import PointStatus
from tests.analysis.builders import ACTIVATIONS, measured_point, points_of, probe_summary
from tests.search import test_stages as stages

BUDGET, WIDTH = 4000, 0.1
SPEC = ACTIVATIONS.replace("epochs: 500, schedule: cosine", f"steps: {BUDGET}")
EMC = {4: 100.0, 8: 200.0, 16: 400.0}
"""EMC of relu with the whole budget by width."""


def simulate_point(
    point: Point, emc: float, exponent: float, rng: np.random.Generator
) -> PointStatus:
    """Simulate the search of a point whose EMC grows as a power of the budget.

    Args:
        emc: EMC with the whole budget (samples).
        exponent: EMC is proportional to the budget to this power.
    """
    probes = []
    for repeat, n in enumerate(np.round(emc * np.exp(rng.normal(-0.6, 0.8, 32))).astype(int)):
        log_time = (math.log(n / emc) + WIDTH * rng.logistic()) / exponent
        steps = min(BUDGET, max(1, round(BUDGET * math.exp(min(log_time, 1.0)))))
        missed = 0 if log_time < 0 else max(1, n // 10)
        probes.append(probe_summary((int(n), missed), repeat, steps=steps))
    record = measured_point(point, [], n_limit=20_000, params=point.swept["model.width"]).record
    record.probes[:] = probes
    history = to_history(probes, point.training)
    estimate = estimate_so_far(point.search, 20_000, history, ended_by="tolerance")
    return PointStatus(point=point, state="done", record=record, estimate=estimate)


def simulate_points(folder: Path, ratio: float, exponent: float) -> list[PointStatus]:
    """Simulate points with tanh, and with relu, whose EMC is proportional to the budget.

    Args:
        ratio: EMC of tanh over EMC of relu with the whole budget.
        exponent: EMC of tanh is proportional to the budget to this power.
    """
    rng = np.random.default_rng(4)
    statuses = []
    for point in points_of(folder, f"{SPEC}  seed: [0, 1, 2]\n"):
        emc = EMC[point.swept["model.width"]]
        if point.swept["model.activation"] == "tanh":
            statuses.append(simulate_point(point, ratio * emc, exponent, rng))
        else:
            statuses.append(simulate_point(point, emc, 1.0, rng))
    return statuses


def comparison(statuses: Sequence[PointStatus]) -> Effect:
    (effect,) = compare_points(statuses, [Compare(by="model.activation")]).effects
    return effect


def test_verdict_may_change_with_the_budget(tmp_path: Path) -> None:
    effect = comparison(simulate_points(tmp_path, ratio=0.7, exponent=0.35))
    quarter, half = effect.at_smaller_budgets.values()
    assert effect.ratio == pytest.approx(0.7, rel=0.15)
    assert quarter.ratio == pytest.approx(0.7 * 4**0.65, rel=0.25)
    assert (effect.verdict, quarter.verdict) == ("smaller", "larger")
    assert quarter.ratio > half.ratio > effect.ratio
    assert effect.verdict_text.startswith("smaller at this budget; larger at B/4")
    row = effect.as_row()
    assert (row["same_verdict_at_all_budgets"], row["verdict_at_quarter"]) == (False, "larger")


def test_verdict_is_equal_at_all_budgets_for_a_constant_ratio(tmp_path: Path) -> None:
    effect = comparison(simulate_points(tmp_path, ratio=2.0, exponent=1.0))
    for at_budget in (effect, *effect.at_smaller_budgets.values()):
        assert at_budget.verdict == "larger"
        assert at_budget.low < 2.0 < at_budget.high
    assert effect.verdict_text == "larger at this budget"
    assert effect.as_row()["same_verdict_at_all_budgets"] is True


def test_ratio_over_budget(tmp_path: Path) -> None:
    statuses = simulate_points(tmp_path, ratio=0.7, exponent=0.35)
    by_budget = compare_at_budgets(statuses, [Compare(by="model.activation")])
    effect = comparison(statuses)
    assert by_budget[1][0].ratio_text == effect.ratio_text
    assert by_budget[0.25][0].ratio_text == effect.at_smaller_budgets["B/4"].ratio_text
    for budget in (1, 1 / 2, 1 / 4, 1 / 8):
        (at_budget,) = by_budget[budget]
        assert at_budget.ratio == pytest.approx(0.7 * budget**-0.65, rel=0.3)
    figure = ratio_budget_figure(by_budget)
    rows = [(row["budget"], row["ratio"]) for row in figure["data"]["values"]]
    assert rows[0] == ("B", effect.ratio_text)
    assert ("B/4", effect.at_smaller_budgets["B/4"].ratio_text) in rows
    assert "<svg" in Chart(figure).svg()
    assert ratio_budget_figure({1.0: by_budget[1]}) is None
    bound = replace(effect, low=None)
    assert ratio_budget_figure({**by_budget, 1.0: [bound]}) is None
    wide = replace(by_budget[0.5][0], high=5 * by_budget[0.5][0].low)
    rows = ratio_budget_figure({**by_budget, 0.5: [wide]})["data"]["values"]
    assert {"B", "B/4"} < {row["budget"] for row in rows}
    assert "B/2" not in {row["budget"] for row in rows}
    by_group = {
        budget: [*effects, *(replace(e, within={"model.depth": "2"}) for e in effects)]
        for budget, effects in by_budget.items()
    }
    rows = ratio_budget_figure(by_group)["data"]["values"]
    assert {row["facet"] for row in rows} == {"all points", "depth 2"}


def test_saturated_points_are_compared_at_their_last_budgets(tmp_path: Path) -> None:
    text = SPEC.replace(f"steps: {BUDGET}", "until: saturation").replace("[4, 8, 16]", "[8]")
    statuses = []
    for number, point in enumerate(points_of(tmp_path, f"{text}  seed: [0, 1]\n")):
        emc = 750.0 if point.swept["model.activation"] == "tanh" else 300.0
        estimate, history = stages.play_doubling(
            stages.simulated(number + 6, saturates=0.0, emc=emc)
        )
        measured = measured_point(point, [], n_limit=stages.N_LIMIT)
        measured.record.probes[:] = [
            probe_summary(
                (r.n, r.n_errors), r.repeat, stage=r.stage,
                steps=max(1, round(r.share * 1000 * 2**r.stage)),
            )
            for r in history
        ]  # fmt: skip
        statuses.append(replace(measured, estimate=estimate))
    assert len({status.estimate.stage for status in statuses}) > 1
    (effect,) = compare_points(statuses, [Compare(by="model.activation")]).effects
    assert effect.ratio == pytest.approx(2.5, rel=0.15)
    assert effect.verdict == "larger"
    saturated = all(status.estimate.saturated == "yes" for status in statuses)
    assert effect.at_this_budget == (not saturated)
    requests = [Compare(by="model.activation")]
    (at_largest,) = compare_at_budgets(statuses, requests)[1]
    assert at_largest.ratio_text == effect.ratio_text

    first, *others = statuses
    assert first.estimate.saturated == "yes"
    assert all(other.estimate.stage == first.estimate.stage + 1 for other in others)
    not_saturated = replace(first.estimate, gain=(1.2, 1.3, 1.4))
    by_budget = compare_at_budgets([replace(first, estimate=not_saturated), *others], requests)
    assert [len(by_budget[fraction]) for fraction in (1, 1 / 2)] == [0, 1]


def with_sample_limit(status: PointStatus, n_limit: int) -> PointStatus:
    header = replace(status.record.header, n_limit=n_limit)
    return replace(status, record=replace(status.record, header=header))


def test_every_line_of_emc_over_budget_has_a_label_at_its_end(tmp_path: Path) -> None:
    """Also a line without a prediction, because the EMC at twice the budget is only a bound."""
    statuses = [
        with_sample_limit(status, 500) if status.point.swept["model.width"] == 16 else status
        for status in simulate_points(tmp_path, ratio=1.0, exponent=1.0)
    ]
    rows = budget_figure(statuses)["data"]["values"]
    lines = group_by(rows, lambda row: row["line"]).values()
    assert len(lines) == 6
    for line in lines:
        assert [row for row in line if "label_y" in row] == [line[-1]]
        assert line[-1]["predicted"] == ("16 parameters" not in line[-1]["size"])
    assert len({row["x"] for row in rows}) == len(rows), "lines overlap at a budget"
    one_width = [status for status in statuses if status.point.swept["model.width"] == 8]
    rows = budget_figure(one_width)["data"]["values"]
    assert len({row["series"] for row in rows}) == 2, "the lines have the same colour"
