"""EMC at training errors that nobody asked for when the probes ran."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

from flexhpc.analysis.collect import row_of
from flexhpc.analysis.text import eps_text
from flexhpc.analysis.training_error import with_errors
from flexhpc.search import EpsEstimate, estimate_at, history_of
from flexhpc.store.status import PointStatus
from tests.analysis.made import BAYES, points, status
from tests.conftest import Cli

OUTCOMES = [(16, 0), (64, 0), (128, 0), (256, 80), (160, 4), (150, 1), (140, 0), (200, 30)]


def test_columns_come_from_the_stored_counts(tmp_path: Path) -> None:
    for search in (BAYES, "{policy: bisection, start: 16}", "{policy: growth, start: 16}"):
        found = status(points(tmp_path, search)[0], OUTCOMES)
        row = row_of(with_errors([found], [0.1, 0.01])[0])
        history = history_of(found.record.probes, found.point.training)
        for eps, name in ((0.01, "emc_eps_0.01"), (0.1, "emc_eps_0.1")):
            wanted = estimate_at(eps, 1000, history)
            assert row[name] == wanted.emc
            assert (row[f"{name}_lo"], row[f"{name}_hi"]) == (wanted.emc_lo, wanted.emc_hi)
            assert row[f"{name}_censored"] == wanted.censored == "none"
        assert row["emc_eps_0.1_hi"] >= 160, "160 samples were trained to an error of 2.5 %"
        assert row["emc"] == row_of(found)["emc"]
        assert list(row)[-8] == "emc_eps_0.01"


def test_what_a_spec_asked_for_is_not_replaced(tmp_path: Path) -> None:
    found = status(points(tmp_path)[0], OUTCOMES)
    own = EpsEstimate(emc=7, emc_lo=5, emc_hi=9, censored="none")
    found = replace(found, estimate=replace(found.estimate, by_eps={"0.1": own}))
    by_eps = with_errors([found], [0.1, 0.01])[0].estimate.by_eps
    assert list(by_eps) == ["0.01", "0.1"]
    assert by_eps["0.1"] is own


def test_points_without_probes_stay_as_they_are(tmp_path: Path) -> None:
    waiting = PointStatus(point=points(tmp_path)[0], state="waiting")
    assert with_errors([waiting], [0.1]) == [waiting]


def test_texts_of_a_training_error() -> None:
    assert eps_text(None) == ""
    assert eps_text(EpsEstimate(emc=4, emc_lo=3, emc_hi=6, censored="none")) == "4 [3, 6]"
    assert eps_text(EpsEstimate(emc=4, emc_lo=3, emc_hi=None, censored="right")) == ">= 4"
    assert eps_text(EpsEstimate(emc=0, emc_lo=0, emc_hi=6, censored="left")) == "[0, 6]"


def test_the_commands_take_training_errors(measured: Path, cli: Cli, tmp_path: Path) -> None:
    asked = ("--eps", 0.01, "--eps", "0.10")
    rows = json.loads(cli("results", measured, "--format", "json", *asked).stdout)
    for row in rows:
        assert row["emc_eps_0.1"] >= row["emc_eps_0.1_lo"] >= row["emc_eps_0.01_lo"]
        assert (row["emc_eps_0.1_censored"] == "right") == (row["emc_eps_0.1_hi"] is None)
    text = cli("results", measured, "--format", "csv", *asked).stdout
    assert [row["emc_eps_0.1"] for row in csv.DictReader(io.StringIO(text))] == [
        str(row["emc_eps_0.1"]) for row in rows
    ]
    table = cli("results", measured, *asked).stdout
    assert "EMC eps 0.01 EMC eps 0.1" in " ".join(table.split())
    for row in rows:
        sign = ">= " if row["emc_eps_0.1_censored"] == "right" else "  "
        assert f"{sign}{row['emc_eps_0.1']}" in table
    page = Path(cli("report", measured, *asked, "-o", tmp_path / "out").stdout.strip())
    assert "emc_eps_0.01" in page.read_text()
    assert "emc_eps_0.01" in (tmp_path / "out" / "results.csv").read_text()
    said = cli("results", measured, "--eps", "1.5", "--eps", "0", check=2).stderr
    assert "--eps 1.5: must lie between 0 and 1" in said
    assert "--eps 0: must lie" in said
