from __future__ import annotations

import csv
import io
import json
import re
from html import escape as html_escape
from pathlib import Path

import pandas
import pytest

from flexhpc.analysis.collect import COLUMNS, as_parquet
from flexhpc.analysis.details import details_of
from flexhpc.analysis.figures.emc import emc_figure
from flexhpc.analysis.figures.point import fit_chart
from flexhpc.analysis.text import bracket_text, emc_text, span
from flexhpc.search import Bracket, Estimate
from flexhpc.store import read
from flexhpc.store.status import StatusReader, open_run
from tests.conftest import Cli

CONTRACT = (
    "params", "emc", "emc_lo", "emc_hi", "level", "estimand", "censored", "largest_fit",
    "smallest_fail", "probes", "cost", "seconds", "emc_per_param", "unconverged", "status",
)  # fmt: skip


def test_results_in_every_format_say_the_same(measured: Path, cli: Cli, tmp_path: Path) -> None:
    assert COLUMNS[: len(CONTRACT)] == CONTRACT
    rows = json.loads(cli("results", measured, "--format", "json").stdout)
    assert list(rows[0]) == ["point_id", "model.width", *COLUMNS]
    text = cli("results", measured, "--format", "csv").stdout
    assert [row["emc"] for row in csv.DictReader(io.StringIO(text))] == [
        str(row["emc"]) for row in rows
    ]
    cli("results", measured, "--format", "parquet", "-o", tmp_path / "r.parquet")
    frame = pandas.read_parquet(tmp_path / "r.parquet")
    assert list(frame.columns) == ["point_id", "model.width", *COLUMNS]
    assert frame["emc"].tolist() == [row["emc"] for row in rows]
    table = cli("results", measured).stdout
    for row in rows:
        assert str(row["emc"]) in table
        assert row["status"] == "done"
        assert row["emc_lo"] <= row["emc"] <= row["emc_hi"]
        assert row["emc_per_param"] == pytest.approx(row["emc"] / row["params"])


def test_rows_agree_with_the_store(measured: Path, cli: Cli) -> None:
    folder, _, points = open_run(measured)
    rows = {
        r["point_id"]: r for r in json.loads(cli("results", measured, "--format", "json").stdout)
    }
    for point in points:
        record, row = read(folder.point(point.id)), rows[point.id]
        assert row["params"] == record.header.params
        assert row["cost"] == sum(p.cost for p in record.probes)
        assert row["unconverged"] == sum(p.verdict == "unconverged" for p in record.probes)
        assert row["largest_fit"] == max(p.n for p in record.probes if p.verdict == "fit")
        assert row["smallest_fail"] == min(p.n for p in record.probes if p.verdict != "fit")


def test_mixed_swept_values_survive_parquet(tmp_path: Path) -> None:
    rows = [{"a": 1, "b": {"x": 1}}, {"a": "two", "b": None}]
    path = tmp_path / "r.parquet"
    path.write_bytes(as_parquet(rows))
    assert pandas.read_parquet(path)["a"].tolist() == ["1", '"two"']


def test_the_report_is_one_self_contained_page(measured: Path, cli: Cli, tmp_path: Path) -> None:
    page = Path(cli("report", measured, "-o", tmp_path / "out").stdout.strip())
    html = page.read_text()
    assert page == tmp_path / "out" / "index.html"
    assert not re.search(r'<[^>]*(src|href)="(?!#|data:)', html.split("<script>")[0]), (
        "it loads something"
    )
    assert html.split("<script>")[0].count("<svg") == 2
    for heading in ("EMC", "EMC per parameter", "Results", "Where this comes from", "Sweep spec"):
        assert f"<h2>{heading}</h2>" in html
    folder, _, points = open_run(measured)
    for status in StatusReader(folder, points).read():
        assert html_escape(emc_text(status.estimate)) in html
    assert len(html) < 2e6
    out = tmp_path / "out"
    assert (out / "results.csv").read_text().startswith("point_id,model.width,params")
    beginnings = {"svg": b"<svg", "png": b"\x89PNG", "pdf": b"%PDF"}
    for ending, begins in beginnings.items():
        for name in ("emc", "emc_per_parameter"):
            assert (out / f"{name}.{ending}").read_bytes().startswith(begins)


def test_a_report_over_several_runs(measured: Path, cli: Cli, tmp_path: Path) -> None:
    page = cli("report", measured, measured, "-o", tmp_path / "two").stdout.strip()
    assert "6 points" in Path(page).read_text()


def test_user_text_is_escaped(tmp_path: Path, cli: Cli) -> None:
    spec = tmp_path / "x.yaml"
    spec.write_text(
        "name: x\nfixed:\n  data: {source: image_folder, root: '/<script>'}\n"
        "  model: {family: linear}\n"
    )
    profile = tmp_path / "p.yaml"
    profile.write_text("tracking_uri: none\n")
    cli("sweep", spec, "--profile", profile, check=1)
    html = (tmp_path / "runs" / "x" / "report" / "index.html").read_text()
    assert "'/<script>'" not in html
    assert "&lt;script&gt;" in html


def test_figures_show_every_point_and_every_training(measured: Path) -> None:
    folder, _, points = open_run(measured)
    statuses = StatusReader(folder, points).read()
    shown = [row for row in emc_figure(statuses)["data"]["values"] if row["kind"] == "point"]
    for row, status in zip(shown, statuses, strict=True):
        estimate = status.estimate
        assert (row["x"], row["y"]) == (status.record.header.params, estimate.emc)
        assert (row["lo"], row["hi"]) == (estimate.emc_lo, estimate.emc_hi)
    told = details_of(statuses)
    for number, status in enumerate(statuses):
        probes = [(p.n, p.repeat, p.verdict, p.n_errors) for p in status.record.probes]
        assert [tuple(probe[:4]) for probe in told[number]["probes"]] == probes
        trainings = fit_chart(status).spec["datasets"]["trainings"]
        assert [row["n"] for row in trainings] == [p.n for p in status.record.probes]


def estimate(**changes: object) -> Estimate:
    base = {
        "emc": 10, "emc_lo": 8, "emc_hi": 12, "level": 0.9, "estimand": "n50", "censored": "none",
        "largest_fit": 9, "smallest_fail": 11, "probes": 5, "cost": 100, "unconverged": 0,
    }  # fmt: skip
    return Estimate(**{**base, **changes})


def test_texts() -> None:
    assert emc_text(None) == ""
    assert emc_text(estimate()) == "10 [8, 12]"
    assert emc_text(estimate(censored="right", emc_hi=None)) == ">= 10"
    assert emc_text(estimate(censored="left", emc=0, smallest_fail=1)) == "< 1"
    assert bracket_text(Bracket(largest_fit=3)) == "3 - ."
    assert bracket_text(Bracket()) == ""
    assert [span(s) for s in (5, 600, 7200)] == ["5 s", "10 min", "2.0 h"]


def test_live_status_of_a_run(measured: Path, cli: Cli) -> None:
    rows = json.loads(cli("status", measured, "--json").stdout)
    assert [row["state"] for row in rows] == ["done"] * 3
    assert all(row["estimate"]["emc"] > 0 for row in rows)
    assert "done" in cli("status", measured).stdout
