"""The live view of a sweep, and its estimate of the remaining time."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from flexhpc.config import Point
from flexhpc.launch.live import View
from flexhpc.launch.time_left import seconds_left, seconds_per_pass
from flexhpc.store.status import PointStatus
from tests.analysis.made import planted_points, status

TRAININGS = 18


@pytest.fixture
def points(tmp_path: Path) -> list[Point]:
    return planted_points(tmp_path, 2)


def seconds(point: Point) -> float:
    """What a training run of a point takes: more for larger ones, and for tanh."""
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
            made = status(point, [(16 + i, i % 2) for i in range(done)], seconds=each)
            statuses.append(replace(made, state="done" if done == TRAININGS else "running"))
        now -= whole
    return statuses


def test_remaining_time_is_that_of_similar_finished_points(
    points: list[Point],
) -> None:
    """Points of width 4 take 1.8 s, or 3.6 s with tanh, as the finished seeds did."""
    whole = {point.id: seconds(point) * TRAININGS for point in points}
    first = points[: len(points) // 2]
    statuses = at(points, sum(whole[point.id] for point in first) + 0.1)
    expected = sum(whole[point.id] for point in points if point not in first) - 0.1
    low, high = seconds_left(statuses)
    assert 0 < low <= high
    twice = [*statuses, *(replace(s, state="done") for s in at(points, 1e9))]
    low, high = seconds_left(twice)
    assert low == pytest.approx(expected, rel=0.1)
    assert high == pytest.approx(expected, rel=0.1)


def test_two_workers_need_half_the_time_until_one_point_is_left(points: list[Point]) -> None:
    done = at(points, 1e9)
    waiting = [PointStatus(point=point, state="waiting") for point in points]
    alone = [PointStatus(point=points[0], state="running"), *waiting[1:], *done]
    both = [PointStatus(point=point, state="running") for point in points[:2]]
    one, two = seconds_left(alone), seconds_left([*both, *waiting[2:], *done])
    assert two[0] == pytest.approx(one[0] / 2)
    last = seconds(points[-1]) * TRAININGS
    many = [PointStatus(point=point, state="running") for point in points]
    assert seconds_left([*many, *done])[1] == pytest.approx(last)


def test_nothing_is_estimated_from_less_than_two_points(points: list[Point]) -> None:
    waiting = [PointStatus(point=point, state="waiting") for point in points]
    assert seconds_left(waiting) is None
    assert seconds_per_pass(waiting) is None
    assert seconds_left([at(points, 1e9)[0], *waiting[1:]]) is None
    assert seconds_left(at(points, 1e9)) == (0.0, 0.0)


def test_a_point_without_trainings_has_the_median_speed(points: list[Point]) -> None:
    statuses = at(points, sum(seconds(p) * TRAININGS for p in points) * 0.6)
    speeds = seconds_per_pass(statuses)
    known = np.array([s.cost > 0 for s in statuses])
    expected = [
        sum(p.seconds for p in s.record.probes) / s.cost for s in statuses if s.record is not None
    ]
    np.testing.assert_allclose(speeds[known], expected)
    assert (speeds[~known] == np.median(expected)).all()


def test_the_view_in_a_terminal_and_elsewhere(points: list[Point]) -> None:
    console = Console(width=100, height=12, file=io.StringIO(), force_terminal=True)
    with View(console, "f") as view:
        for now in (0.0, 3.0, 9.0, 15.0):
            view.update(at(points, now), note="starting workers ..." if not now else "")
    output = console.file.getvalue()
    assert "left" in output
    assert "/12 points" in output
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
