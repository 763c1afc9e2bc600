"""Results in every format, EMC at training errors and budgets, and the report."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from html import escape
from pathlib import Path

import pandas
import pytest

import flexhpc
from flexhpc.analysis.details import details_of
from flexhpc.analysis.figures.emc import emc_figure
from flexhpc.analysis.figures.point import fit_chart
from flexhpc.analysis.results import (
    COLUMNS,
    EVALUATION,
    PREFIXES,
    as_parquet,
    describe_column,
    results_row,
    with_eps_estimates,
)
from flexhpc.analysis.tables import latex_table
from flexhpc.analysis.text import bracket_text, duration_text, emc_text, interval_text
from flexhpc.cli.options import check_budgets
from flexhpc.errors import InputError
from flexhpc.search import Bracket, EmcInterval, Estimate, estimate_at_training_error
from flexhpc.store import read_point_file, to_history
from flexhpc.store.status import PointStatus, StatusReader, open_run
from tests.analysis.builders import (
    DIGITS,
    UNCENSORED,
    measured_point,
    one_point,
    points_of,
    probe_summary,
    write_report,
)
from tests.conftest import REPOSITORY, Cli

CONTRACT = (
    "params", "emc", "emc_lo", "emc_hi", "level", "estimand", "censored", "largest_fit",
    "smallest_fail", "probes", "cost", "seconds", "emc_per_param", "unconverged", "status",
)  # fmt: skip


def test_title_of_a_single_point_describes_the_measurement(tmp_path: Path) -> None:
    (point,) = points_of(tmp_path, DIGITS.replace("digits", "digits, labels: random"))
    title = fit_chart(measured_point(point, UNCENSORED)).spec["title"]["text"]
    assert title == "mlp, width 4, digits, random labels"


def test_latex_table_contains_bounds_intervals_and_escaped_text(tmp_path: Path) -> None:
    classes = [0, 1] * 5
    zipped = points_of(
        tmp_path,
        f"{DIGITS}  search: {{policy: bayes, start: 16}}\nzip:\n"
        f"  - data.class_map: [null, {classes}, null]\n"
        "    model.activation: [leaky_relu, tanh, relu]\n",
    )
    outcomes = [(500, 0), (1000, 0)], [(4, 2), (1, 1)], UNCENSORED
    statuses = [measured_point(p, runs) for p, runs in zip(zipped, outcomes, strict=True)]
    custom = {"data.class_map": "x2", "model.activation": "a|b=50%"}
    statuses[2] = replace(statuses[2], point=replace(statuses[2].point, swept=custom))
    estimate = statuses[2].estimate
    columns = r"data.class\_map & model.activation & params & EMC & EMC/param \\"
    lines = latex_table(statuses).splitlines()
    assert lines[1:5] == [r"\begin{tabular}{llrrr}", r"\toprule", columns, r"\midrule"]
    assert lines[5] == r" & leaky\_relu & 100 & $\geq$ 1000 & $\geq$ 10.000 \\"
    assert lines[6] == rf"{{}}{classes} & tanh & 100 & $<$ 1 & $<$ 0.010 \\"
    cells = rf"100 & {emc_text(estimate)} & {estimate.emc / 100:.3f} \\"
    assert lines[7] == rf"x2 & a\textbar{{}}b=50\% & {cells}"
    assert lines[8:] == [r"\bottomrule", r"\end{tabular}"]


def test_latex_table_marks_factors_by_a_sign(tmp_path: Path) -> None:
    status = measured_point(one_point(tmp_path), UNCENSORED)
    estimate = replace(status.estimate, doubling=(1.0, 1.25, 1.5))
    lines = latex_table([replace(status, estimate=estimate)]).splitlines()
    assert r"& 2$\times$ budget &" in lines[3]
    assert r"& $\times$1.25 &" in lines[5]


def test_every_column_is_described_in_the_docs() -> None:
    names = [*COLUMNS, *(f"{prefix}*" for prefix in PREFIXES), *EVALUATION]
    rows = [f"| `{name}` | {describe_column(name)} |" for name in names]
    assert "\n".join(rows) in (REPOSITORY / "docs" / "reading.md").read_text()


def test_every_format_agrees_with_the_point_files(
    small_run: Path, cli: Cli, tmp_path: Path
) -> None:
    assert tuple(COLUMNS)[: len(CONTRACT)] == CONTRACT
    rows = json.loads(cli("results", small_run, "--format", "json").stdout)
    assert list(rows[0]) == ["point_id", "model.width", *COLUMNS]
    text = cli("results", small_run, "--format", "csv").stdout
    emcs = [row["emc"] for row in rows]
    assert [row["emc"] for row in csv.DictReader(io.StringIO(text))] == list(map(str, emcs))
    cli("results", small_run, "--format", "parquet", "-o", tmp_path / "r.parquet")
    frame = pandas.read_parquet(tmp_path / "r.parquet")
    assert list(frame.columns) == ["point_id", "model.width", *COLUMNS]
    assert frame["emc"].tolist() == emcs
    table = cli("results", small_run).stdout
    latex = cli("results", small_run, "--format", "latex").stdout
    assert all(f"& {emc} [" in latex for emc in emcs)
    folder, _, points = open_run(small_run)
    for point, row in zip(points, rows, strict=True):
        record = read_point_file(folder.point_file(point.id))
        assert (row["point_id"], row["status"]) == (point.id, "done")
        assert str(row["emc"]) in table
        assert row["emc_lo"] <= row["emc"] <= row["emc_hi"]
        assert row["emc_per_param"] == pytest.approx(row["emc"] / record.header.params)
        assert row["cost"] == sum(p.cost for p in record.probes)
        assert row["unconverged"] == sum(p.verdict == "unconverged" for p in record.probes)
        assert row["largest_fit"] == max(p.n for p in record.probes if p.verdict == "fit")
        assert row["smallest_fail"] == min(p.n for p in record.probes if p.verdict != "fit")
    states = json.loads(cli("status", small_run, "--json").stdout)
    assert [(s["state"], s["estimate"]["emc"]) for s in states] == [("done", emc) for emc in emcs]


def test_parquet_stores_swept_values_of_different_types_as_json(tmp_path: Path) -> None:
    rows = [{"a": 1, "b": {"x": 1}}, {"a": "two", "b": None}]
    path = tmp_path / "r.parquet"
    path.write_bytes(as_parquet(rows))
    assert pandas.read_parquet(path)["a"].tolist() == ["1", '"two"']


def test_report_is_one_self_contained_page(small_run: Path, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out"
    page = Path(cli("report", small_run, "-o", out).stdout.strip())
    html = page.read_text()
    assert page == out / "index.html"
    body = html.split("<script>")[0]
    assert not re.search(r'<[^>]*(src|href)="(?!#|data:)', body), "the page loads a file"
    assert body.count("<svg") == len(list(out.glob("*.svg")))
    for heading in ("EMC", "EMC per parameter", "Results", "Provenance", "Sweep spec"):
        assert f"<h2>{heading}</h2>" in html
    folder, _, points = open_run(small_run)
    for point in StatusReader(folder, points).read():
        assert escape(emc_text(point.estimate)) in html
    assert len(html) < 2e6
    assert re.search(r"budget: [\d,]+ (steps|epochs);", html)
    assert "measures the points that are not done" in html
    assert (out / "results.csv").read_text().startswith("point_id,model.width,params")
    for suffix, start in {"svg": b"<svg", "png": b"\x89PNG", "pdf": b"%PDF"}.items():
        for name in ("emc", "emc_per_parameter"):
            assert (out / f"{name}.{suffix}").read_bytes().startswith(start)
    of_two_runs = cli("report", small_run, small_run, "-o", tmp_path / "two").stdout.strip()
    assert "6 points" in Path(of_two_runs).read_text()


def test_report_escapes_text_of_the_user(tmp_path: Path) -> None:
    point = replace(one_point(tmp_path), swept={"data.root": "/<script>"})
    failed = PointStatus(point=point, state="failed", message="/<script> is not a folder")
    html = write_report([failed], tmp_path / "report", "root: '/<script>'").read_text()
    assert "/<script>" not in html
    assert html.count("/&lt;script&gt;") >= 2


def test_figures_contain_every_point_and_every_training_run(small_run: Path) -> None:
    folder, _, points = open_run(small_run)
    statuses = StatusReader(folder, points).read()
    rows = [row for row in emc_figure(statuses)["data"]["values"] if row["kind"] == "point"]
    all_details = details_of([(folder, status) for status in statuses])
    for row, details, point in zip(rows, all_details, statuses, strict=True):
        estimate = point.estimate
        assert (row["x"], row["y"]) == (point.record.header.params, estimate.emc)
        assert (row["lo"], row["hi"]) == (estimate.emc_lo, estimate.emc_hi)
        probes = [(p.n, p.repeat, p.verdict, p.n_errors) for p in point.record.probes]
        assert [tuple(probe[:4]) for probe in details["probes"]] == probes
        last_epochs = [probe.epochs for probe in point.record.probes]
        assert [epochs[-1] for *_, epochs, _ in details["probes"]] == last_epochs
        drawn = [row["n"] for row in fit_chart(point).spec["datasets"]["trainings"]]
        assert drawn == [n for n, *_ in probes]


def test_estimates_brackets_and_durations_are_formatted() -> None:
    values = {
        "emc": 10, "emc_lo": 8, "emc_hi": 12, "level": 0.9, "estimand": "n50", "censored": "none",
        "largest_fit": 9, "smallest_fail": 11, "probes": 5, "cost": 100, "unconverged": 0,
        "rejected": 0, "width": (0.1, 0.2, 0.3), "lapse": (0.0, 0.01, 0.1),
    }  # fmt: skip
    assert emc_text(None) == ""
    assert emc_text(Estimate(**values)) == "10 [8, 12]"
    assert emc_text(Estimate(**{**values, "censored": "right", "emc_hi": None})) == ">= 10"
    left = {**values, "censored": "left", "emc": 0, "smallest_fail": 1}
    assert emc_text(Estimate(**left)) == "< 1"
    assert bracket_text(Bracket(largest_fit=3)) == "3 - ."
    assert bracket_text(Bracket()) == ""
    assert [duration_text(s) for s in (5, 600, 7200)] == ["5 s", "10 min", "2.0 h"]
    assert interval_text(None) == ""
    assert interval_text(EmcInterval(emc=4, emc_lo=3, emc_hi=6, censored="none")) == "4 [3, 6]"
    assert interval_text(EmcInterval(emc=4, emc_lo=3, emc_hi=None, censored="right")) == ">= 4"
    assert interval_text(EmcInterval(emc=0, emc_lo=0, emc_hi=6, censored="left")) == "[0, 6]"


OUTCOMES = [(16, 0), (64, 0), (128, 0), (256, 80), (160, 4), (150, 1), (140, 0), (200, 30)]


@pytest.mark.parametrize("policy", ["bayes", "bisection", "growth"])
def test_emc_at_a_training_error_uses_the_stored_probes(policy: str, tmp_path: Path) -> None:
    point = measured_point(one_point(tmp_path, f"{{policy: {policy}, start: 16}}"), OUTCOMES)
    row = results_row(with_eps_estimates([point], [0.1, 0.01])[0])
    history = to_history(point.record.probes, point.point.training)
    for eps, name in ((0.01, "emc_eps_0.01"), (0.1, "emc_eps_0.1")):
        expected = estimate_at_training_error(eps, 1000, history)
        assert row[name] == expected.emc
        assert (row[f"{name}_lo"], row[f"{name}_hi"]) == (expected.emc_lo, expected.emc_hi)
        assert row[f"{name}_censored"] == expected.censored == "none"
    assert row["emc_eps_0.1_hi"] >= 160, "a probe of 160 samples had an error of 2.5 %"
    assert row["emc"] == results_row(point)["emc"]
    assert list(row)[-8] == "emc_eps_0.01"


def test_stored_estimates_at_training_errors_are_not_replaced(tmp_path: Path) -> None:
    point = measured_point(one_point(tmp_path), OUTCOMES)
    stored = EmcInterval(emc=7, emc_lo=5, emc_hi=9, censored="none")
    point = replace(point, estimate=replace(point.estimate, by_eps={"0.1": stored}))
    by_eps = with_eps_estimates([point], [0.1, 0.01])[0].estimate.by_eps
    assert list(by_eps) == ["0.01", "0.1"]
    assert by_eps["0.1"] is stored
    waiting = PointStatus(point=point.point, state="waiting")
    assert with_eps_estimates([waiting], [0.1]) == [waiting]


def test_results_contain_emcs_at_other_budgets(small_run: Path, cli: Cli) -> None:
    budgets = ("--budget", 60, "--budget", 240.0)
    rows = json.loads(cli("results", small_run, "--format", "json", *budgets).stdout)
    run = flexhpc.load(small_run)
    for row, measurement in zip(rows, run, strict=True):
        at_half = measurement.at_budget(60)
        assert row["emc_budget_60"] == at_half.emc < row["emc"]
        assert row["emc_budget_60_lo"] <= at_half.emc <= row["emc_budget_60_hi"]
        assert (row["emc_budget_60_predicted"], row["emc_budget_240_predicted"]) == (False, True)
        assert row["emc_budget_240"] == measurement.at_budget(240).emc >= row["emc"]
        doubling = measurement.doubling[1]
        assert row["doubling_lo"] <= row["doubling"] == doubling <= row["doubling_hi"]
        assert row["saturated"] in ("yes", "no", "unknown")
        assert measurement.at_budget(120).emc == row["emc"]
        assert f"at 120 epochs; twice the budget: x{doubling:.2f} [" in repr(measurement)
    with pytest.raises(ValueError, match="must be above 0 and at most 240, which is 2 times"):
        run[0].at_budget(241)
    table = cli("results", small_run, *budgets).stdout
    for text in ("2x budget", f"x{rows[0]['doubling']:.2f}", "EMC at 60", "EMC at 240 (predicted)"):
        assert text in table
    assert f"x{rows[0]['doubling']:.2f}" in cli("status", small_run).stdout
    errors = cli("results", small_run, "--budget", 241, "--budget", 0, check=2).stderr
    limit = "must be above 0 and at most 240, which is 2 times the largest budget"
    assert f"--budget 241: {limit}" in errors
    assert "--budget 0: must be" in errors


@pytest.mark.parametrize(
    ("training", "time"),
    [
        ("{optimizer: adam, epochs: 20}", 10 / 20),
        ("{optimizer: gd, steps: 20, warmup: 5}", 10 / 20),
        ("{optimizer: adam, gradient_evaluations: 1000}", 160 / 1000),
        ("{optimizer: adam, epochs: 20, schedule: cosine}", None),
        ("{optimizer: adam, epochs: 20, unconverged: extend}", None),
        ("{optimizer: adam, until: convergence}", None),
    ],
)
def test_other_budgets_require_that_training_does_not_depend_on_its_budget(
    training: str, time: float | None, tmp_path: Path
) -> None:
    (point,) = points_of(tmp_path, f"{DIGITS}  training: {training}\n")
    fit, fail = to_history([probe_summary((16, 0)), probe_summary((32, 3))], point.training)
    assert (fit.time, fail.time) == (time, None)
    if time is None:
        with pytest.raises(InputError, match="--budget: the EMC at other budgets can be"):
            check_budgets([5], [point.training])


def test_results_contain_emcs_at_training_errors(small_run: Path, cli: Cli, tmp_path: Path) -> None:
    eps = ("--eps", 0.01, "--eps", "0.10")
    rows = json.loads(cli("results", small_run, "--format", "json", *eps).stdout)
    table = cli("results", small_run, *eps).stdout
    assert "EMC eps 0.01 EMC eps 0.1" in " ".join(table.split())
    for row in rows:
        censored = row["emc_eps_0.1_censored"] == "right"
        assert row["emc_eps_0.1"] >= row["emc_eps_0.1_lo"] >= row["emc_eps_0.01_lo"]
        assert censored == (row["emc_eps_0.1_hi"] is None)
        assert f"{'>= ' if censored else '  '}{row['emc_eps_0.1']}" in table
    page = Path(cli("report", small_run, *eps, "-o", tmp_path / "out").stdout.strip())
    assert "emc_eps_0.01" in page.read_text()
    assert "emc_eps_0.01" in (tmp_path / "out" / "results.csv").read_text()
    errors = cli("results", small_run, "--eps", "1.5", "--eps", "0", check=2).stderr
    assert "--eps 1.5: must be between 0 and 1" in errors
    assert "--eps 0: must be" in errors
