"""The last points of a sweep: those that take longest come first, and workers go by it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flexhpc.launch.longest_first import LongestFirst, longest_first
from flexhpc.spec import Point, checked
from flexhpc.store.status import PointStatus, StatusReader, open_run
from flexhpc.worker.turns import Turns, next_of
from tests.analysis.made import status
from tests.command import succeeded

SPEC = """\
name: widths
fixed:
  data: {source: digits, labels: random}
  model: {family: mlp, depth: 1}
  training: {optimizer: adam, lr: 1.0e-2, epochs: 200}
  search: {policy: bisection, start: 16, tolerance: 0.1}
grid:
  model.width: [4, 6, 12, 24]
"""


@pytest.fixture
def points(tmp_path: Path) -> list[Point]:
    (tmp_path / "widths.yaml").write_text(SPEC)
    return checked(tmp_path / "widths.yaml")[1]


def waiting(points: list[Point]) -> list[PointStatus]:
    return [PointStatus(point=point, state="waiting") for point in points]


def measured(point: Point, seconds: float) -> PointStatus:
    """Return a point done with eight trainings of so many seconds."""
    made = status(point, [(16 + i, i % 2) for i in range(8)])
    probes = [replace(probe, seconds=seconds) for probe in made.record.probes]
    return replace(made, record=replace(made.record, probes=probes), state="done")


def test_nothing_is_said_before_a_point_tells_how_long_it_takes(points: list[Point]) -> None:
    assert longest_first(waiting(points)) == []


def test_the_longest_of_those_that_nobody_is_at_comes_first(points: list[Point]) -> None:
    ids = [point.id for point in points]
    larger = [measured(points[0], 1.0), *waiting(points[1:])]
    assert longest_first(larger) == [ids[3], ids[2], ids[1]]
    at_work = [larger[0], *larger[1:3], replace(larger[3], state="running")]
    assert longest_first(at_work) == [ids[2], ids[1]]
    stopped = [larger[0], replace(larger[1], state="stopped"), *larger[2:]]
    assert longest_first(stopped) == [ids[3], ids[2], ids[1]]
    quicker = [measured(points[0], 1.0), measured(points[1], 0.1), *waiting(points[2:])]
    assert longest_first(quicker) == [ids[2], ids[3]], "what was seen counts more than the size"


def test_only_the_last_points_have_turns(tmp_path: Path) -> None:
    spec = tmp_path / "many.yaml"
    spec.write_text(SPEC.replace("[4, 6, 12, 24]", str(list(range(4, 24)))))
    points = checked(spec)[1]
    several = [measured(points[0], 1.0), *waiting(points[1:])]
    assert longest_first(several) == []
    two_at_work = [replace(one, state="running") for one in several[1:4]]
    several[1:4] = two_at_work
    assert len(longest_first(several)) == 16
    assert len(longest_first([*several[:1], *[several[0]] * 11, *several[12:]])) == 8


def test_workers_go_by_what_is_said_and_by_the_spec_without(
    points: list[Point], tmp_path: Path
) -> None:
    assert next_of(points, tmp_path) == 0
    told = LongestFirst(tmp_path)
    told.tell([measured(points[0], 1.0), *waiting(points[1:])])
    assert next_of(points, tmp_path) == 3
    assert next_of(points[:3], tmp_path) == 2
    assert next_of(points[:1], tmp_path) == 0, "not one of those whose turn it is"
    Turns(points=["unknown", points[1].id]).write(tmp_path)
    assert next_of(points, tmp_path) == 1
    for damaged in ("", "{", "[]", '{"points": 3}', '{"points": [3]}', "\0"):
        Turns.path(tmp_path).write_text(damaged)
        assert next_of(points, tmp_path) == 0


def test_a_folder_that_is_gone_is_not_made_anew(points: list[Point], tmp_path: Path) -> None:
    LongestFirst(tmp_path / "gone").tell([measured(points[0], 1.0), *waiting(points[1:])])
    assert not (tmp_path / "gone").exists()


def test_a_sweep_takes_its_last_points_in_turn(tmp_path: Path) -> None:
    """The first ones tell that larger ones take longer; so the largest is not the last."""
    widths = SPEC.replace("epochs: 200", "epochs: 1200").replace(
        "[4, 6, 12, 24]", "[4, 5, 6, 8, 24]"
    )
    (tmp_path / "widths.yaml").write_text(widths)
    (tmp_path / "profile.yaml").write_text("tracking_uri: none\nworkers: 1\n")
    succeeded(tmp_path, "sweep", "widths.yaml", "--profile", "profile.yaml")
    run, _, points = open_run(tmp_path / "runs" / "widths")
    statuses = StatusReader(run, points).read()
    begun = [min(p.finished for p in s.record.probes) for s in statuses if s.record]
    taken = sorted(range(5), key=lambda place: begun[place])
    assert taken[0] == 0
    assert taken[-1] != 4
