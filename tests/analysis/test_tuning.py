"""The best values of tuned keys, as tables, pages and warnings name them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from flexhpc.analysis.censoring import why_bound
from flexhpc.analysis.collect import row_of
from flexhpc.analysis.endings import warnings
from flexhpc.analysis.figures.point import VERDICTS, fit_chart
from flexhpc.analysis.training_error import with_errors
from flexhpc.analysis.tuning import AT_EDGE, at_edge, best_text, tuned
from flexhpc.config import checked
from flexhpc.store.status import PointStatus
from flexhpc.training import Verdict
from tests.analysis.made import points, status, summary

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


def with_a_bad_rate(folder: Path) -> PointStatus:
    """The best rate fits all 64 samples that there are, another one misses nearly all of them."""
    found = best_at(folder, 4, 0.9)
    record = found.record
    assert record is not None
    probes = [
        *(summary((n, 0), arm=4) for n in (16, 32, 64)),
        *(summary((n, n - 1), repeat, arm=5) for n in (32, 64) for repeat in range(4)),
    ]
    header = replace(record.header, n_limit=64)
    estimate = replace(found.estimate, emc=64, censored="right", emc_hi=None)
    return replace(found, record=replace(record, probes=probes, header=header), estimate=estimate)


def test_all_that_is_said_of_a_point_rests_on_the_best_values(tmp_path: Path) -> None:
    found = with_a_bad_rate(tmp_path)
    assert [result.n for result in found.history] == [16, 32, 64]
    assert why_bound(found) == "all fitted"
    (at_error,) = with_errors([found], [0.1])
    assert at_error.estimate is not None
    assert at_error.estimate.by_eps["0.1"].censored == "right"
    bits = row_of(found)["bits_per_param"]
    assert bits == pytest.approx(64 * math.log2(10) / 100)
    spec = fit_chart(found).spec
    drawn = [(row["shown"], row["n"]) for row in spec["datasets"]["trainings"]]
    others = [("other tuned values", n) for n in (32, 64) for _ in range(4)]
    assert drawn == [("fit", 16), ("fit", 32), ("fit", 64), *others]
    legend = spec["layer"][-1]["encoding"]["color"]["legend"]["values"]
    assert legend == ["fit", "other tuned values"]


def test_every_verdict_is_drawn(tmp_path: Path) -> None:
    verdicts = get_args(Verdict)
    outcomes = [(16, 0), *((20 + i, 1, verdict) for i, verdict in enumerate(verdicts))]
    rows = fit_chart(status(points(tmp_path)[0], outcomes)).spec["datasets"]["trainings"]
    assert {row["shown"] for row in rows} == set(verdicts) <= set(VERDICTS)


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
