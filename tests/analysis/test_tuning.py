"""The best values of tuned keys, as tables, pages and warnings name them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flexhpc.analysis.endings import warnings
from flexhpc.analysis.tuning import AT_EDGE, at_edge, best_text, tuned
from flexhpc.spec import checked
from flexhpc.store.status import PointStatus
from tests.analysis.made import points, status

SPEC = """\
name: tuned
fixed:
  data: {source: digits, labels: random}
  model: {family: mlp, width: 8, gain: {tune: [0.5, 1, 2]}}
  training: {optimizer: adam, lr: {tune: [1e-3, 1e-2, 1e-1]}}
"""
OUTCOMES = [(16, 0), (32, 0), (64, 5)]


def best_at(folder: Path, arm: int, chance: float | None) -> PointStatus:
    spec = folder / "tuned.yaml"
    spec.write_text(SPEC)
    plain = status(points(folder)[0], OUTCOMES)
    (point,) = checked(spec)[1]
    assert plain.estimate is not None
    return replace(
        plain, point=point, estimate=replace(plain.estimate, arm=arm, best_chance=chance)
    )


@pytest.mark.parametrize(
    ("arm", "said", "edge"),
    [
        (4, "gain=1 lr=0.01, 62%", False),
        (5, "gain=1 lr=0.1 (edge), 62%", True),
        (0, "gain=0.5 (edge) lr=0.001 (edge), 62%", True),
    ],
)
def test_values_at_an_end_are_marked(tmp_path: Path, arm: int, said: str, edge: bool) -> None:
    found = best_at(tmp_path, arm, 0.62)
    assert tuned([found])
    assert best_text(found) == said
    assert at_edge(found) is edge
    assert (AT_EDGE in dict(warnings([found]))) is edge


def test_a_point_that_tunes_nothing_has_no_best_value(tmp_path: Path) -> None:
    plain = status(points(tmp_path)[0], OUTCOMES)
    assert not tuned([plain])
    assert best_text(plain) == ""
    assert not at_edge(plain)


def test_what_is_tuned_is_in_the_label(tmp_path: Path) -> None:
    spec = tmp_path / "labelled.yaml"
    spec.write_text(
        "name: labelled\nfixed:\n  data: {source: digits}\n  model: {family: mlp, width: 8}\n"
        "grid:\n  training:\n    - {optimizer: sgd, lr: {tune: [0.01, 0.3]}}\n"
        "    - {optimizer: adam, lr: 0.001}\n"
    )
    labels = [point.label for point in checked(spec)[1]]
    assert labels == ["sgd lr=[0.01, 0.3]", "adam lr=0.001"]
