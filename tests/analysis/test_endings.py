"""Why a search ended, and warnings beside intervals, wherever a person reads them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flexhpc.analysis.endings import ONE_TRAINING, WIDER, ending_text, warning_lines, warnings
from flexhpc.analysis.report import write_report
from flexhpc.store.status import PointStatus
from flexhpc.tracking.note import note_of
from tests.analysis.made import BAYES, BISECTION, points, status

HALVES = [(16, 0), (32, 0), (64, 5), (45, 3), (38, 1), (34, 0), (36, 0), (37, 0)]
MANY = [(n, missed) for n, missed in ((30, 0), (34, 0), (40, 2), (44, 5)) for _ in range(12)]


def ended(folder: Path, search: str, outcomes: list[tuple[int, int]], why: str) -> PointStatus:
    found = status(points(folder, search)[0], outcomes)
    assert found.estimate is not None
    return replace(found, estimate=replace(found.estimate, ended_by=why))


def test_a_bisection_with_single_trainings_is_warned_of(tmp_path: Path) -> None:
    single = ended(tmp_path, BISECTION, HALVES, "tolerance")
    assert ending_text(single) == "bracket (wide)"
    assert [text for text, _ in warnings([single])] == [WIDER, ONE_TRAINING]
    assert warning_lines([single])[1].startswith("1 of 1 points: one training per n")
    note = note_of(single)
    assert "ended by: bracket (wide)" in note
    assert "One training per n" in note
    page = write_report("made", [single], [], tmp_path).read_text()
    assert "bracket (wide)</td>" in page
    assert "1 of 1 points: one training per n" in page


def test_several_trainings_per_n_are_not_one(tmp_path: Path) -> None:
    search = "{policy: bisection, start: 16, seeds_per_n: 3}"
    several = ended(tmp_path, search, [o for o in HALVES for _ in range(3)], "tolerance")
    assert ONE_TRAINING not in dict(warnings([several]))


@pytest.mark.parametrize("why", ["tolerance", "max_trainings", "max_cost", "data"])
def test_a_narrow_interval_has_no_warning(tmp_path: Path, why: str) -> None:
    found = ended(tmp_path, BAYES, MANY, why)
    assert ending_text(found) == why
    assert warnings([found]) == []


def test_a_wide_interval_at_a_cap_is_marked(tmp_path: Path) -> None:
    found = ended(tmp_path, BAYES, HALVES[:4], "max_trainings")
    assert ending_text(found) == "max_trainings (wide)"
    assert warning_lines([found]) == [f"1 of 1 points: {WIDER}."]


def test_a_search_that_goes_on_has_not_ended(tmp_path: Path) -> None:
    found = status(points(tmp_path, BAYES)[0], HALVES)
    assert ending_text(found) == ""
