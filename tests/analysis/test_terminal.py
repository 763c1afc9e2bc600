"""Tables in terminals of any width, names of points, and reasons of failures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len

from flexhpc.analysis.reasons import NO_RESULT, ending_text, failure_lines
from flexhpc.analysis.tables import (
    Column,
    fitted_table,
    results_html,
    results_table,
    shorten_name,
    status_view,
)
from flexhpc.analysis.text import emc_text, without_shared_entries
from flexhpc.store.status import PointStatus
from tests.analysis.builders import BAYES, DIGITS, measured_point, points_of, render, two_points

PROGRESS = {"n": 120, "epoch": 30, "epochs": 300, "n_errors": 12, "elapsed": 3.0}


def status_lines(statuses: list[PointStatus], width: int = 160) -> list[str]:
    return render(status_view(statuses, width), width)


@pytest.fixture
def points(tmp_path: Path) -> list[PointStatus]:
    """A finished, a running and a waiting point."""
    small, large = two_points(tmp_path, BAYES)
    outcomes = [(16, 0), (32, 0), (64, 3), (45, 1), (38, 0), (50, 2), (40, 0), (42, 1)]
    done = replace(
        measured_point(small, outcomes, params=1234567), host="a-long-host-name", attempts=3
    )
    running = replace(
        measured_point(large, outcomes), state="running", progress=PROGRESS, host="node"
    )
    waiting = PointStatus(point=replace(large, id="waits"), state="waiting")
    return [done, running, waiting]


@pytest.mark.parametrize("width", [120, 200])
def test_long_names_are_cut_in_the_middle(points: list[PointStatus], width: int) -> None:
    """Keys without a value are omitted from names."""
    keys = {f"model.key_{i}": None if i % 2 else i for i in range(16)}
    swept = [replace(points[0].point, swept={**keys, "seed": seed}) for seed in range(3)]
    statuses = [replace(points[0], point=point, host="host") for point in swept]
    lines = status_lines(statuses, width)[1:]
    for seed, (line, point) in enumerate(zip(lines, statuses, strict=True)):
        assert len(line) <= width
        assert emc_text(point.estimate) in line
        assert ending_text(point) in line
        assert f"seed={seed} " in line
        assert "None" not in line


@pytest.mark.parametrize("width", [60, 80, 110, 160])
def test_columns_that_do_not_fit_are_omitted(points: list[PointStatus], width: int) -> None:
    header, done, running, _ = status_lines(points, width)
    assert max(map(len, (header, done, running))) <= width
    assert "…" not in header + done + running
    for text in (points[0].point.label, "done", emc_text(points[0].estimate)):
        assert text in done
    assert header.split()[:2] == ["point", "state"]
    if width >= 160:
        assert "a-long-host-name" in done
        assert "30/300" in running
    if width == 110:
        assert ending_text(points[0]) in done
        assert "host" not in header
    results = render(results_table(points, width), width)
    assert max(map(len, results)) <= width
    assert all("…" not in line for line in results)
    assert emc_text(points[0].estimate) in results[1]


def test_swept_keys_and_names_stay_readable_in_80_columns(points: list[PointStatus]) -> None:
    swept = {"data.labels": "random", "model.width": 16, "seed": 0, "training.optimizer": "adam"}
    status = replace(points[0], point=replace(points[0].point, swept=swept))
    header, row = render(results_table([status], 80), 80)
    assert header.split()[:4] == ["data.labels", "width", "seed", "optimizer"]
    assert row.split()[:4] == ["random", "16", "0", "adam"]
    assert status_lines([status], 80)[1].startswith(status.point.label)


def test_cut_names_remain_distinct() -> None:
    kinds = ("linear", "mlp depth=1", "mlp depth=3", "cnn depth=1", "cnn depth=2")
    names = [f"original {kind} width={width}" for kind in kinds for width in (8, 16)]
    lines = render(fitted_table([Column(name="point", cells=names, min_width=22)], 22), 80)
    assert all(len(line) <= 22 for line in lines)
    assert len(set(lines[1:])) == len(names), lines
    default_cuts = {shorten_name(name, 22) for name in names}
    assert len(default_cuts) < len(names), "the default cut is ambiguous"


def test_cut_names_of_wide_characters_fit_the_column() -> None:
    names = ["数据集的一个很长的名字", "ab数据集的名字", "short"]
    lines = render(fitted_table([Column(name="point", cells=names, min_width=12)], 12), 80)
    assert all(cell_len(line) <= 12 for line in lines), lines
    assert shorten_name("数据集的一个很长的名字", 12) == "数据… 的名字"


def test_unfinished_estimate_is_marked(points: list[PointStatus]) -> None:
    _, done, running, _ = status_lines(points)
    assert "~ " + emc_text(points[1].estimate) in running
    assert "~ " + emc_text(points[0].estimate) not in done
    styled = render(status_view(points, 160), 160, colours=True)
    assert "\x1b[2;3" in styled[2], "dim and italic"


def test_points_that_failed_for_the_same_reason_share_a_line(points: list[PointStatus]) -> None:
    """Points with a probe, and groups of fewer than three points, keep their rows."""
    message = "data.source: cifar10 was not found in data"
    failed = [
        PointStatus(point=replace(points[0].point, id=f"{i}"), state="failed", message=message)
        for i in range(24)
    ]
    with_probes = replace(points[1], state="failed", message=message, progress={})
    lines = status_lines([points[0], *failed, with_probes])
    assert len(lines) == 4
    assert lines[-1] == f"24 points (first: {points[0].point.label}) failed: {message}"
    assert "failed" in lines[2]
    assert len(status_lines(failed[:2])) == 3
    assert status_lines(failed) == [lines[-1]]


def test_each_reason_of_failure_is_one_line(points: list[PointStatus]) -> None:
    messages = ("no file", "", "no file")
    failed = [replace(points[0], state="failed", message=message) for message in messages]
    label = points[0].point.label
    assert failure_lines([*failed, points[1]]) == [
        f"failed: {label} and 1 more: no file", f"failed: {label}: {NO_RESULT}",
    ]  # fmt: skip


def test_limited_rows_include_running_points(points: list[PointStatus]) -> None:
    lines = render(status_view([points[0]] * 30 + [points[1]], 160, rows=6), 160)
    assert len(lines) == 7
    assert "running" in lines[-2]
    assert lines[-1].strip() == "... 26 more"


def test_labels_omit_shared_entries_of_swept_mappings(tmp_path: Path) -> None:
    swept = points_of(
        tmp_path,
        f"{DIGITS}grid:\n  training:\n    - {{optimizer: sgd, steps: 200, lr: 0.1}}\n"
        "    - {optimizer: sgd, steps: 200, lr: 0.1, weight_decay: 0.01}\n"
        "    - {optimizer: adam, steps: 200, lr: 0.1}\n",
    )
    waiting = [PointStatus(point=point, state="waiting") for point in swept]
    for labels in (
        ["sgd", "sgd weight_decay=0.01", "adam"], ["sgd", "weight_decay=0.01"], ["sgd"],
    ):  # fmt: skip
        shortened = without_shared_entries(waiting[: len(labels)])
        assert [status.point.label for status in shortened] == labels


def test_labels_contain_tuned_keys(tmp_path: Path) -> None:
    swept = points_of(
        tmp_path,
        f"{DIGITS}grid:\n  training:\n    - {{optimizer: sgd, lr: {{tune: [0.01, 0.3]}}}}\n"
        "    - {optimizer: adam, lr: 0.001}\n",
    )
    assert [point.label for point in swept] == ["sgd lr=[0.01, 0.3]", "adam lr=0.001"]


def test_html_of_results_is_escaped_and_limited(points: list[PointStatus]) -> None:
    labels = ["<b>", *"abcdefghij" * 10]
    swept = [replace(points[0].point, swept={"data.labels": label}) for label in labels]
    html = results_html([replace(points[0], point=point) for point in swept])
    assert html.startswith("<table><thead><tr><th>data.labels</th><th>params</th><th>EMC</th>")
    assert html.count("<tr>") == 1 + 60
    assert "<td>&lt;b&gt;</td><td>1,234,567</td>" in html
    assert "<div>The table shows 60 of 101 points.</div>" in html
    assert results_html([]) == ""
