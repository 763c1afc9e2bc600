"""Reasons for bounds and for the ends of searches, and warnings, in all formats."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pandas
import pytest

from flexhpc.analysis.figures.emc import emc_figure
from flexhpc.analysis.figures.point import VERDICTS, fit_chart
from flexhpc.analysis.reasons import (
    AT_EDGE,
    ONE_TRAINING,
    REASONS,
    TRAIN_EVAL_GAP,
    WIDER,
    best_value_at_edge,
    best_values_text,
    censoring_reason,
    emc_warnings,
    ending_text,
    group_censored_by_reason,
    has_tuned_keys,
    warning_lines,
)
from flexhpc.analysis.results import (
    as_csv,
    as_json,
    as_parquet,
    numeric_columns,
    results_row,
    with_eps_estimates,
)
from flexhpc.analysis.tables import results_table
from flexhpc.analysis.text import ratio_text
from flexhpc.store.status import PointStatus
from flexhpc.tracking.description import point_description
from flexhpc.training import Verdict
from tests.analysis.builders import (
    ALL_FIT,
    BAYES,
    BISECTION,
    NONE_FIT,
    UNCENSORED,
    measured_point,
    one_point,
    points_of,
    probe_summary,
    render,
    two_points,
    write_report,
)

MANY_PROBES = [(30, 0), (34, 0), (40, 2), (44, 5)] * 12


@pytest.fixture
def points(tmp_path: Path) -> list[PointStatus]:
    """A right-censored, a left-censored and an uncensored point."""
    small, large = two_points(tmp_path)
    return [
        measured_point(small, ALL_FIT, params=100, bits=3200),
        measured_point(large, NONE_FIT, params=200, bits=6400),
        measured_point(large, UNCENSORED, params=300, bits=9600),
    ]


def test_points_whose_training_runs_fail_only_in_evaluation_are_marked(tmp_path: Path) -> None:
    status = measured_point(one_point(tmp_path), [*NONE_FIT, (1, 0)])

    def warn(missed: float, count: int) -> bool:
        runs = status.record.probes
        changed = [replace(p, metrics={"missed_only_in_evaluation": missed * p.n}) for p in runs]
        record = replace(status.record, probes=[*changed[:count], *runs[count:]])
        texts = [text for text, _ in emc_warnings([replace(status, record=record)])]
        return TRAIN_EVAL_GAP in texts

    assert warn(0.5, 2)
    assert not warn(0.5, 1)
    assert not warn(0.01, 3)


def test_bounds_are_marked_in_every_results_format(
    points: list[PointStatus], tmp_path: Path
) -> None:
    rows = [results_row(s) for s in points]
    assert [row["censored"] for row in rows] == ["right", "left", "none"]
    assert [row["emc_per_param"] for row in rows] == [10, 0, rows[2]["emc"] / 300]
    assert numeric_columns(rows[0])["emc_per_param"] == 10
    csv = pandas.read_csv(io.StringIO(as_csv(rows)), keep_default_na=False)
    (tmp_path / "r.parquet").write_bytes(as_parquet(rows))
    parquet = pandas.read_parquet(tmp_path / "r.parquet")
    for frame in (csv, parquet, pandas.DataFrame(json.loads(as_json(rows)))):
        assert frame["emc_per_param_bound"].tolist() == [">=", "<", ""]
        assert frame["emc_per_param"].dtype == np.float64
    texts = [ratio_text(s.estimate, s.record.header.params) for s in points]
    assert texts == [">= 10.000", "< 0.020", f"{rows[2]['emc'] / 300:.3f}"]
    assert ratio_text(points[0].estimate, 10**6) == ">= 0.001"
    assert ratio_text(points[0].estimate, 4 * 10**6) == ">= 0.00025"
    assert ratio_text(None, 100) == ratio_text(points[0].estimate, 0) == ""


def test_bounds_are_marked_in_table_note_and_report(
    points: list[PointStatus], tmp_path: Path
) -> None:
    lines = render(results_table(points), 200)
    assert ">= 1000" in lines[1]
    assert ">= 10.000" in lines[1]
    assert "< 0.020" in lines[2]
    assert not {"<", ">"} & set(lines[3])
    right, left, exact = map(point_description, points)
    assert right.startswith("**EMC >= 1000** (all fitted, n50, level 0.9), 100 parameters")
    assert "EMC per parameter >= 10.000, 7 probes" in right
    assert left.startswith("**EMC < 4** (none fitted, n50")
    assert "EMC per parameter < 0.020" in left
    assert not {"<", ">"} & set(exact)
    page = write_report(points, tmp_path).read_text()
    assert ">&gt;= 10.000</td>" in page
    assert "<td>&gt;= 0.312</td>" in page, "EMC per bit"
    assert ">&lt; 0.020</td>" in page
    assert f"{REASONS['all fitted']}: width=4\n    (&gt;= 1000)" in page
    assert f"{REASONS['none fitted']}: width=8\n    (&lt; 4)" in page
    for key in ("limit reached", "none failed", "too few fitted"):
        assert REASONS[key] not in page


@pytest.mark.parametrize("per_parameter", [False, True])
def test_bounds_are_arrows_outside_of_curves(
    per_parameter: bool, points: list[PointStatus]
) -> None:
    spec = emc_figure(points, "emc_per_param" if per_parameter else "emc")
    rows = spec["data"]["values"]
    by_x = {row["x"]: row for row in rows if row["kind"] == "point"}
    assert [by_x[x]["censored"] for x in (100, 200, 300)] == ["right", "left", "none"]
    assert by_x[200]["y"] == 4 / (200 if per_parameter else 1), "EMC is below 4"
    assert by_x[100]["lo"] == by_x[100]["y"] == by_x[100]["hi"], "a bound has no interval"
    assert [row["x"] for row in rows if row["kind"] == "line"] == [300]
    marks = {
        layer["transform"][0]["filter"].split("'")[-2]: layer["mark"]
        for layer in spec["layer"]
        if layer["mark"]["type"] == "point"
    }
    tips = [float(marks[side]["shape"].split(",")[1].split()[0]) for side in ("right", "left")]
    assert tips[0] < 0 < tips[1], "negative y is up"


def test_median_over_seeds_may_be_exact_if_one_seed_is_censored(tmp_path: Path) -> None:
    point = one_point(tmp_path)
    seeds = [measured_point(point, outcomes) for outcomes in (UNCENSORED, UNCENSORED, ALL_FIT)]
    larger = measured_point(point, UNCENSORED, params=200)
    for curve, sizes_with_median in ((seeds, 2), (seeds[1:], 1)):
        rows = emc_figure([*curve, larger])["data"]["values"]
        assert [row["kind"] for row in rows].count("line") == sizes_with_median


FAILED_BELOW = [(16, 0), (1000, 0), (500, 3), (1000, 0), (900, 0), (1000, 0), (950, 0)]
FAILED_ON_ALL = [*FAILED_BELOW, (1000, 0), (1000, 0), (1000, 1)]


@pytest.mark.parametrize(
    ("search", "outcomes", "reason"),
    [
        (BAYES, ALL_FIT, "all fitted"),
        (BISECTION, ALL_FIT, "all fitted"),
        (BAYES, FAILED_BELOW, "all fitted"),
        (BAYES, FAILED_ON_ALL, "limit reached"),
        ("{policy: bisection, start: 1000, seeds_per_n: 3}", [(1000, 0), (1000, 4), (1000, 0)],
         "limit reached"),
        (BAYES, ALL_FIT[:3], "none failed"),
        (BISECTION, ALL_FIT[:3], "none failed"),
        (BAYES, NONE_FIT, "none fitted"),
        ("{policy: bisection, start: 2, seeds_per_n: 3}",
         [(n, missed) for n in (2, 1) for missed in (0, 1, 1)], "too few fitted"),
        (BISECTION, UNCENSORED, ""),
    ],
)  # fmt: skip
def test_every_bound_has_a_reason(
    search: str, outcomes: list[tuple[int, int]], reason: str, tmp_path: Path
) -> None:
    point = measured_point(one_point(tmp_path, search), outcomes)
    assert (point.estimate.censored == "none") == (reason == "")
    assert censoring_reason(point) == results_row(point)["censored_because"] == reason
    if reason in ("all fitted", "limit reached"):
        assert point.estimate.emc == 1000
    assert group_censored_by_reason([point]) == ([(REASONS[reason], [point])] if reason else [])
    subtitle = fit_chart(point).spec["title"]["subtitle"]
    assert subtitle.endswith(f"({reason})" if reason else "]")


def test_waiting_point_has_no_reason(tmp_path: Path) -> None:
    waiting = PointStatus(point=one_point(tmp_path), state="waiting")
    row = results_row(waiting)
    assert (row["emc_per_param_bound"], row["censored_because"]) == (None, None)
    assert censoring_reason(waiting) == ""


def ended(folder: Path, search: str, outcomes: list[tuple[int, int]], ended_by: str) -> PointStatus:
    point = measured_point(one_point(folder, search), outcomes)
    return replace(point, estimate=replace(point.estimate, ended_by=ended_by))


def test_bisection_with_one_training_run_per_n_gives_a_warning(tmp_path: Path) -> None:
    single = ended(tmp_path, BISECTION, UNCENSORED, "tolerance")
    assert ending_text(single) == "bracket (wide)"
    assert [text for text, _ in emc_warnings([single])] == [WIDER, ONE_TRAINING]
    assert warning_lines([single])[1].startswith("1 of 1 points: one training run per n")
    note = point_description(single)
    assert "ended by: bracket (wide)" in note
    assert "One training run per n" in note
    page = write_report([single], tmp_path).read_text()
    assert "bracket (wide)</td>" in page
    assert "1 of 1 points: one training run per n" in page
    search = "{policy: bisection, start: 16, seeds_per_n: 3}"
    three_seeds = ended(tmp_path, search, [o for o in UNCENSORED for _ in range(3)], "tolerance")
    assert ONE_TRAINING not in dict(emc_warnings([three_seeds]))


@pytest.mark.parametrize("ended_by", ["tolerance", "max_cost", "data"])
def test_only_a_wide_interval_gives_a_warning(tmp_path: Path, ended_by: str) -> None:
    narrow = ended(tmp_path, BAYES, MANY_PROBES, ended_by)
    assert (ending_text(narrow), emc_warnings([narrow])) == (ended_by, [])
    wide = ended(tmp_path, BAYES, UNCENSORED[:4], ended_by)
    assert ending_text(wide) == f"{ended_by} (wide)"
    assert warning_lines([wide]) == [f"1 of 1 points: {WIDER}."]
    assert ending_text(measured_point(one_point(tmp_path, BAYES), UNCENSORED)) == "", "not ended"


TUNED = """\
fixed:
  data: {source: digits, labels: random}
  model: {family: mlp, width: 8, gain: {tune: [0.5, 1, 2]}}
  training: {optimizer: adam, lr: {tune: [1e-3, 1e-2, 1e-1]}, epochs: 500}
"""


def tuned_point(folder: Path, arm: int) -> PointStatus:
    (point,) = points_of(folder, TUNED)
    untuned = measured_point(one_point(folder), UNCENSORED[:3])
    assert (has_tuned_keys([untuned]), best_values_text(untuned)) == (False, "")
    assert best_value_at_edge(untuned) is False
    estimate = replace(untuned.estimate, arm=arm, best_chance=0.62)
    return replace(untuned, point=point, estimate=estimate)


@pytest.mark.parametrize(
    ("arm", "text", "edge"),
    [
        (4, "gain=1 lr=0.01, 62%", False),
        (5, "gain=1 lr=0.1 (edge), 62%", True),
        (0, "gain=0.5 (edge) lr=0.001 (edge), 62%", True),
    ],
)
def test_best_values_at_an_edge_are_marked(tmp_path: Path, arm: int, text: str, edge: bool) -> None:
    point = tuned_point(tmp_path, arm)
    assert has_tuned_keys([point])
    assert best_values_text(point) == text
    assert best_value_at_edge(point) is edge
    assert (AT_EDGE in dict(emc_warnings([point]))) is edge


def test_results_of_a_tuned_point_use_the_best_arm_only(tmp_path: Path) -> None:
    """The best arm fits all 64 available samples; a different arm misses nearly all of them."""
    point = tuned_point(tmp_path, 4)
    probes = [
        *(probe_summary((n, 0), arm=4) for n in (16, 32, 64)),
        *(probe_summary((n, n - 1), repeat, arm=5) for n in (32, 64) for repeat in range(4)),
    ]
    header = replace(point.record.header, n_limit=64)
    point = replace(
        point,
        record=replace(point.record, probes=probes, header=header),
        estimate=replace(point.estimate, emc=64, censored="right", emc_hi=None),
    )
    assert [result.n for result in point.history] == [16, 32, 64]
    assert censoring_reason(point) == "all fitted"
    (with_eps,) = with_eps_estimates([point], [0.1])
    assert with_eps.estimate.by_eps["0.1"].censored == "right"
    assert results_row(point)["bits_per_param"] == pytest.approx(64 * math.log2(10) / 100)
    spec = fit_chart(point).spec
    drawn = [(row["shown"], row["n"]) for row in spec["datasets"]["trainings"]]
    others = [("other tuned values", n) for n in (32, 64) for _ in range(4)]
    assert drawn == [("fit", 16), ("fit", 32), ("fit", 64), *others]
    legend = spec["layer"][-1]["encoding"]["color"]["legend"]["values"]
    assert legend == ["fit", "other tuned values"]


def test_probes_of_every_verdict_are_drawn(tmp_path: Path) -> None:
    verdicts = get_args(Verdict)
    outcomes = [(16, 0), *((20 + i, 1, verdict) for i, verdict in enumerate(verdicts))]
    rows = fit_chart(measured_point(one_point(tmp_path), outcomes)).spec["datasets"]["trainings"]
    assert {row["shown"] for row in rows} == set(verdicts) <= set(VERDICTS)
