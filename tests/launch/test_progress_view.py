"""The live view of a sweep, and its estimate of the remaining time."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from flexhpc.config import Point
from flexhpc.launch import progress_view
from flexhpc.launch.progress_view import ProgressView
from flexhpc.launch.remaining_time import estimate_remaining_seconds, seconds_per_pass
from flexhpc.store.status import PointStatus
from tests.analysis.builders import activation_points, measured_point

PROBES = 18
"""Of each point."""


@pytest.fixture
def points(tmp_path: Path) -> list[Point]:
    return activation_points(tmp_path, 2)


def seconds_per_probe(point: Point) -> float:
    """Return a time that increases with the width, and is twice as long for tanh."""
    factor = 2 if point.swept["model.activation"] == "tanh" else 1
    return 0.1 * (point.swept["model.width"] / 4) ** 0.5 * factor


def total_seconds(points: list[Point]) -> float:
    return PROBES * sum(map(seconds_per_probe, points))


def unfinished(points: list[Point], state: str = "waiting") -> list[PointStatus]:
    return [PointStatus(point=point, state=state) for point in points]


def statuses_at(points: list[Point], elapsed: float) -> list[PointStatus]:
    """Return the statuses after so many seconds with one worker, which measures them in order."""
    statuses = []
    for point in points:
        seconds = seconds_per_probe(point)
        count = int(min(max(elapsed, 0.0), seconds * PROBES) / seconds + 1e-9)
        if count:
            measured = measured_point(
                point, [(16 + i, i % 2) for i in range(count)], seconds=seconds
            )
            statuses.append(replace(measured, state="done" if count == PROBES else "running"))
        else:
            statuses += unfinished([point], "running" if elapsed > 0 else "waiting")
        elapsed -= seconds * PROBES
    return statuses


def test_remaining_time_is_estimated_from_similar_points(points: list[Point]) -> None:
    """Points of width 4 take 1.8 s, or 3.6 s with tanh, as with the finished seeds."""
    half = len(points) // 2
    statuses = statuses_at(points, total_seconds(points[:half]) + 0.1)
    low, high = estimate_remaining_seconds(statuses)
    assert 0 < low <= high
    finished = statuses_at(points, 1e9)
    expected = total_seconds(points[half:]) - 0.1
    assert estimate_remaining_seconds([*statuses, *finished]) == pytest.approx(
        (expected, expected), rel=0.1
    )


def test_remaining_time_is_divided_by_the_number_of_workers(points: list[Point]) -> None:
    finished = statuses_at(points, 1e9)
    (one_low, _), (two_low, _) = (
        estimate_remaining_seconds(
            [*unfinished(points[:k], "running"), *unfinished(points[k:]), *finished]
        )
        for k in (1, 2)
    )
    assert two_low == pytest.approx(one_low / 2)
    _, all_high = estimate_remaining_seconds([*unfinished(points, "running"), *finished])
    assert all_high == pytest.approx(total_seconds(points[-1:])), "the longest point"


def test_remaining_time_requires_two_finished_points(points: list[Point]) -> None:
    waiting, finished = unfinished(points), statuses_at(points, 1e9)
    assert estimate_remaining_seconds(waiting) is None
    assert seconds_per_pass(waiting) is None
    assert estimate_remaining_seconds([finished[0], *waiting[1:]]) is None
    assert estimate_remaining_seconds(finished) == (0.0, 0.0)


def test_points_without_probes_have_the_median_speed(points: list[Point]) -> None:
    statuses = statuses_at(points, total_seconds(points) * 0.6)
    speeds = seconds_per_pass(statuses)
    has_probes = np.array([s.cost > 0 for s in statuses])
    expected = [
        sum(p.seconds for p in s.record.probes) / s.cost for s in statuses if s.record is not None
    ]
    np.testing.assert_allclose(speeds[has_probes], expected)
    assert (speeds[~has_probes] == np.median(expected)).all()


def test_a_terminal_shows_progress_and_remaining_time(points: list[Point]) -> None:
    console = Console(width=100, height=12, file=io.StringIO(), force_terminal=True)
    with ProgressView(console, "f") as view:
        for elapsed in (0.0, 3.0, 9.0, 15.0):
            note = "starting workers ..." if not elapsed else ""
            view.update(statuses_at(points, elapsed), note=note)
    output = console.file.getvalue()
    assert "left" in output
    assert "/12 points" in output


@pytest.mark.parametrize(
    ("remaining", "text"),
    [((19.2, 19.4), "19 s left"), ((19.0, 30.0), "19 to 30 s left"), ((50.0, 600.0), "50 s to ")],
)
def test_remaining_time_is_a_range_only_if_its_ends_differ(
    points: list[Point], remaining: tuple[float, float], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_view, "estimate_remaining_seconds", lambda _: remaining)
    console = Console(width=100, file=io.StringIO())
    statuses = [PointStatus(point=point, state="waiting") for point in points]
    console.print(ProgressView(console, "f").render(statuses, note=""))
    assert f", {text}" in console.file.getvalue()


def test_without_a_terminal_each_change_is_one_line(points: list[Point]) -> None:
    """Points that failed for the same reason share a line."""
    console = Console(width=100, file=io.StringIO())
    failed = [
        PointStatus(point=p, state="failed", message="no data" if i else "other")
        for i, p in enumerate(points)
    ]
    with ProgressView(console, "f") as view:
        view.update(unfinished(points))
        view.update(statuses_at(points, 15.0))
        view.update([statuses_at(points, 15.0)[0], *failed[1:]])
        view.update(failed)
    lines = console.file.getvalue().splitlines()
    assert sum(": done, EMC " in line for line in lines) >= 2
    assert [line for line in lines if "no data" in line] == [
        f"[12/12] {points[1].label} and 10 more: failed: no data"
    ]
    counts = [line.split("/")[0] for line in lines if ": done" in line]
    assert counts == [f"[{i}" for i in range(1, len(counts) + 1)]
    assert lines[-1] == f"[12/12] {points[0].label}: failed: other"
