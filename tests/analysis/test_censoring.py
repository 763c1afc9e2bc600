"""A bound is shown as a bound, wherever a person or a program reads it, and why it is one."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas
import pytest
from rich.console import Console

from flexhpc.analysis.censoring import REASONS, bounds, why_bound
from flexhpc.analysis.collect import as_csv, as_json, as_parquet, measurements, row_of
from flexhpc.analysis.endings import ending_text
from flexhpc.analysis.figures.emc import emc_figure, medians_of
from flexhpc.analysis.figures.point import fit_chart
from flexhpc.analysis.report import write_report
from flexhpc.analysis.status_table import status_view
from flexhpc.analysis.tables import results_table
from flexhpc.analysis.text import emc_text, ratio_text
from flexhpc.store.status import PointStatus
from flexhpc.tracking.note import note_of
from tests.analysis.made import BAYES, BISECTION, points, status

ALL_FIT = [(min(16 * 2**i, 1000), 0) for i in range(7)]
NONE_FIT = [(16, 9), (8, 7), (4, 2)]
BETWEEN = [(16, 0), (32, 0), (64, 5), (45, 3), (38, 1), (34, 0), (36, 0), (37, 0)]


@pytest.fixture
def three(tmp_path: Path) -> list[PointStatus]:
    """Points censored on the right, on the left, and not at all."""
    small, large = points(tmp_path)
    return [
        status(small, ALL_FIT, params=100, bits=3200),
        status(large, NONE_FIT, params=200, bits=6400),
        status(large, BETWEEN, params=300, bits=9600),
    ]


def test_emc_per_parameter_is_a_bound_where_emc_is_one(three: list[PointStatus]) -> None:
    rows = [row_of(s) for s in three]
    assert [row["censored"] for row in rows] == ["right", "left", "none"]
    assert [row["emc_per_param_bound"] for row in rows] == [">=", "<", ""]
    assert [row["emc_per_param"] for row in rows] == [10, 0, rows[2]["emc"] / 300]
    texts = [ratio_text(s.estimate, s.record.header.params) for s in three]
    assert texts == [">= 10.000", "< 0.020", f"{rows[2]['emc'] / 300:.3f}"]
    assert ratio_text(three[0].estimate, 10**6) == ">= 0.001"
    assert ratio_text(three[0].estimate, 4 * 10**6) == ">= 0.00025"
    assert ratio_text(None, 100) == ratio_text(three[0].estimate, 0) == ""


def test_every_format_has_the_bound_beside_the_number(
    three: list[PointStatus], tmp_path: Path
) -> None:
    rows = [row_of(s) for s in three]
    wanted = [">=", "<", ""]
    read = pandas.read_csv(io.StringIO(as_csv(rows)), keep_default_na=False)
    assert read["emc_per_param_bound"].tolist() == wanted
    assert [row["emc_per_param_bound"] for row in json.loads(as_json(rows))] == wanted
    (tmp_path / "r.parquet").write_bytes(as_parquet(rows))
    frame = pandas.read_parquet(tmp_path / "r.parquet")
    assert frame["emc_per_param_bound"].tolist() == wanted
    for found in (read, frame):
        assert found["emc_per_param"].dtype == np.float64
    assert measurements(rows[0])["emc_per_param"] == 10


def test_the_table_in_a_terminal_shows_bounds(three: list[PointStatus]) -> None:
    console = Console(width=200, file=io.StringIO())
    console.print(results_table(three))
    lines = console.file.getvalue().splitlines()
    assert ">= 1000" in lines[1]
    assert ">= 10.000" in lines[1]
    assert "< 0.020" in lines[2]
    assert ">" not in lines[3]
    assert "<" not in lines[3]


@pytest.mark.parametrize("width", [120, 150, 200])
def test_long_names_push_no_figure_out_of_the_table(three: list[PointStatus], width: int) -> None:
    """Names are cut in the middle, and do without the keys that are not set."""
    keys = {f"model.key_{i}": None if i % 2 else i for i in range(16)}
    named = [
        replace(s, point=replace(s.point, swept={**keys, "seed": seed}), host="host")
        for seed, s in enumerate(three)
    ]
    console = Console(width=width, file=io.StringIO())
    console.print(status_view(named, width))
    lines = console.file.getvalue().splitlines()
    for seed, (line, point) in enumerate(zip(lines[1:], named, strict=True)):
        assert len(line.rstrip()) <= width
        assert emc_text(point.estimate) in line
        assert ending_text(point) in line
        assert f"seed={seed} " in line
        assert "None" not in line


def test_the_note_in_mlflow_shows_bounds(three: list[PointStatus]) -> None:
    right, left, exact = map(note_of, three)
    assert right.startswith("**EMC >= 1000** (all fitted, n50, level 0.9), 100 parameters")
    assert "EMC per parameter >= 10.000, 7 probes" in right
    assert left.startswith("**EMC < 4** (none fitted, n50")
    assert "EMC per parameter < 0.020" in left
    assert not {"<", ">"} & set(exact)


def test_the_report_shows_bounds_and_says_why(three: list[PointStatus], tmp_path: Path) -> None:
    page = write_report("made", three, [], tmp_path).read_text()
    assert ">&gt;= 10.000</td>" in page
    assert "<td>&gt;= 0.312</td>" in page, "EMC per bit"
    assert ">&lt; 0.020</td>" in page
    assert f"{REASONS['all fitted']}: width=4\n    (&gt;= 1000)" in page
    assert f"{REASONS['none fitted']}: width=8\n    (&lt; 4)" in page
    for key in ("limit reached", "none failed", "too few fitted"):
        assert REASONS[key] not in page


@pytest.mark.parametrize("per_parameter", [False, True])
def test_bounds_never_look_like_measurements(per_parameter: bool, three: list[PointStatus]) -> None:
    """Open with an arrow that points to where the value lies, and on no curve."""
    spec = emc_figure(three, per_parameter=per_parameter)
    rows = spec["data"]["values"]
    shown = {row["x"]: row for row in rows if row["kind"] == "point"}
    assert [shown[x]["censored"] for x in (100, 200, 300)] == ["right", "left", "none"]
    assert shown[200]["y"] == 4 / (200 if per_parameter else 1), (
        "what is known is that EMC is below 4"
    )
    assert shown[100]["lo"] == shown[100]["y"] == shown[100]["hi"], "a bound has no interval"
    assert [row["x"] for row in rows if row["kind"] == "line"] == [300]
    marks = {
        layer["transform"][0]["filter"].split("'")[-2]: layer["mark"]
        for layer in spec["layer"]
        if layer["mark"]["type"] == "point"
    }
    assert {side: mark["filled"] for side, mark in marks.items()} == {
        "none": True, "right": False, "left": False,
    }  # fmt: skip
    head = {
        side: float(marks[side]["shape"].split(",")[1].split()[0]) for side in ("right", "left")
    }
    assert head["right"] < 0 < head["left"], "up on a page is less"


def test_a_median_over_seeds_may_be_known_though_one_is_a_bound(tmp_path: Path) -> None:
    point, _ = points(tmp_path)
    seeds = [status(point, BETWEEN), status(point, BETWEEN), status(point, ALL_FIT)]
    for some, known in ((seeds, True), (seeds[1:], False)):
        ((_, median, _),) = medians_of(some, lambda _: 100.0)
        assert (median is not None) == known


FAILED_BELOW = [(16, 0), (1000, 0), (500, 3), (1000, 0), (900, 0), (1000, 0), (950, 0)]
FAILED_ON_ALL = [*FAILED_BELOW, (1000, 0), (1000, 0), (1000, 1)]


@pytest.mark.parametrize(
    ("search", "outcomes", "why"),
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
        (BISECTION, BETWEEN, ""),
    ],
)  # fmt: skip
def test_what_is_said_of_a_bound_is_true(
    search: str, outcomes: list[tuple[int, int]], why: str, tmp_path: Path
) -> None:
    found = status(points(tmp_path, search)[0], outcomes)
    assert (found.estimate.censored == "none") == (why == "")
    assert why_bound(found) == row_of(found)["censored_because"] == why
    if why in ("all fitted", "limit reached"):
        assert found.estimate.emc == 1000
    assert bounds([found]) == ([(REASONS[why], [found])] if why else [])
    title = fit_chart(found).spec["title"]["subtitle"]
    assert title.endswith(f"({why})" if why else "]")


def test_nothing_is_said_before_the_first_probe(tmp_path: Path) -> None:
    waiting = PointStatus(point=points(tmp_path)[0], state="waiting")
    assert why_bound(waiting) == ""
    row = row_of(waiting)
    assert (row["emc_per_param_bound"], row["censored_because"]) == (None, None)
