"""How long a sweep still takes: told from what its own trainings took."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from bench.findings.page import RECORDS
from bench.findings.records import kept
from bench.forecast import Truth, by_seed, undisturbed
from flexhpc.launch.forecast import Forecast, Pace, between, seconds_per_pass
from flexhpc.launch.live import View
from flexhpc.spec import Point, checked
from flexhpc.store.status import PointStatus
from tests.analysis.made import status

SPEC = """\
name: f
fixed:
  data: {source: digits, labels: random}
  model: {family: mlp, depth: 1}
  search: {policy: bayes, start: 16}
grid:
  model.activation: [relu, tanh]
  model.width: [4, 8, 16, 32, 64, 128]
"""
TRAININGS = 18


@pytest.fixture
def points(tmp_path: Path) -> list[Point]:
    (tmp_path / "f.yaml").write_text(SPEC)
    return checked(tmp_path / "f.yaml")[1]


def seconds(point: Point) -> float:
    """What a training of a point takes: more for larger ones, and for tanh."""
    swept = point.swept
    return (
        0.1 * (swept["model.width"] / 4) ** 0.5 * (2 if swept["model.activation"] == "tanh" else 1)
    )


def at(points: list[Point], now: float) -> list[PointStatus]:
    """Where the points stand after so many seconds, with one worker that does one after another."""
    statuses = []
    for point in points:
        each = seconds(point)
        whole = each * TRAININGS
        done = int(min(max(now, 0.0), whole) / each + 1e-9)
        if done == 0:
            statuses.append(PointStatus(point=point, state="running" if now > 0 else "waiting"))
        else:
            made = status(point, [(16 + i, i % 2) for i in range(done)])
            probes = [replace(probe, seconds=each) for probe in made.record.probes]
            state = "done" if done == TRAININGS else "running"
            statuses.append(replace(made, record=replace(made.record, probes=probes), state=state))
        now -= whole
    return statuses


@pytest.mark.parametrize("part", [0.35, 0.5, 0.65, 0.8, 0.95])
def test_the_time_left_is_right_within_half_after_a_third(points: list[Point], part: float) -> None:
    """Where points take what their sizes and kinds suggest; nothing foretells the others."""
    whole = sum(seconds(point) * TRAININGS for point in points)
    now = 0.0
    pace = Pace(lambda: 1.1 * now)  # a tenth of the time goes to other things
    left = None
    for step in range(41):
        now = whole * part * step / 40
        statuses = at(points, now)
        forecast = Forecast.of(statuses)
        if forecast is not None:
            left = pace.seconds_left(statuses, forecast)
    assert left is not None
    assert forecast is not None
    true = 1.1 * whole * (1 - part)
    assert true / 1.5 < np.median(left) < 1.5 * true
    assert abs(forecast.done - part) < 0.15
    low, high = between(left)
    assert low < true < high
    assert high / low < 4


def test_nothing_is_foretold_from_nothing(points: list[Point]) -> None:
    waiting = [PointStatus(point=point, state="waiting") for point in points]
    assert Forecast.of(waiting) is None
    assert seconds_per_pass(waiting) is None
    done = at(points, 1e9)
    forecast = Forecast.of(done)
    assert not forecast.left.any()
    assert not forecast.longest.any()
    assert forecast.done == 1
    failed = [replace(done[0], state="failed"), *waiting[1:]]
    assert (Forecast.of(failed).left > 0).all()


def test_two_workers_need_half_the_time_until_one_point_is_left(points: list[Point]) -> None:
    statuses = at(points, 20.0)
    forecast = Forecast.of(statuses)
    now = 0.0
    pace = Pace(lambda: now)
    two = [replace(s, state="running") if s.state == "waiting" else s for s in statuses]
    pace.seconds_left(two, forecast)
    now = 1.0
    more = replace(forecast, spent=forecast.spent + 2.0)
    workers = sum(s.state == "running" for s in two)
    expected = np.maximum(forecast.left / workers, forecast.longest) * workers / 2.0
    np.testing.assert_allclose(pace.seconds_left(two, more), expected)


@pytest.mark.parametrize("name", ["finding_activations", "finding_optimizers"])
def test_the_range_holds_in_sweeps_that_were_measured(name: str, tmp_path: Path) -> None:
    """Four times in five is what it says; the points of one seed alone tell less."""
    statuses = undisturbed(kept(RECORDS / f"{name}.json.xz", tmp_path)[0])
    whole = Truth.of([statuses], workers=2)
    assert whole.held > 0.8
    assert whole.close > 0.8
    assert whole.width < 2.5
    assert Truth.of(by_seed(statuses), workers=2).held > 0.6


def test_speed_of_points_not_begun_is_that_of_their_like(points: list[Point]) -> None:
    statuses = at(points, sum(seconds(p) * TRAININGS for p in points) * 0.6)
    speeds = seconds_per_pass(statuses)
    known = np.array([s.cost > 0 for s in statuses])
    expected = [
        sum(p.seconds for p in s.record.probes) / s.cost for s in statuses if s.record is not None
    ]
    np.testing.assert_allclose(speeds[known], expected)
    assert (speeds > 0).all()
    assert np.isfinite(speeds).all()


def test_the_view_in_a_terminal_and_elsewhere(points: list[Point]) -> None:
    console = Console(width=100, height=12, file=io.StringIO(), force_terminal=True)
    with View(console, "f") as view:
        for now in (0.0, 3.0, 9.0, 15.0):
            view.update(at(points, now), note="starting workers ..." if not now else "")
    said = console.file.getvalue()
    assert "left" in said
    assert "/12 points" in said
    plain = Console(width=100, file=io.StringIO())
    with View(plain, "f") as view:
        view.update([PointStatus(point=point, state="waiting") for point in points])
        view.update(at(points, 15.0))
        failed = [
            PointStatus(point=p, state="failed", message="no data" if i else "other")
            for i, p in enumerate(points)
        ]
        view.update([at(points, 15.0)[0], *failed[1:]])
        view.update([failed[0], *failed[1:]])
    lines = plain.file.getvalue().splitlines()
    assert sum(": done " in line for line in lines) >= 2
    assert [line for line in lines if "no data" in line] == [
        f"[12/12] {points[1].label} and 10 more: failed no data"
    ]
    assert lines[-1] == f"[12/12] {points[0].label}: failed other"
