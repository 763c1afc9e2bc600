"""Tables in terminals of any width: columns are whole, guesses look like guesses."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from flexhpc.analysis.reasons import NO_RESULT, ending_text, failure_lines
from flexhpc.analysis.tables import Column, cut, results_table, status_view, table_of
from flexhpc.analysis.text import emc_text, without_shared_entries
from flexhpc.store.status import PointStatus
from tests.analysis.made import BAYES, points, points_of, status

PROGRESS = {"n": 120, "epoch": 30, "epochs": 300, "n_errors": 12, "elapsed": 3.0}


def shown(renderable: object, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    console.print(renderable)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.fixture
def some(tmp_path: Path) -> list[PointStatus]:
    """A point that is done, one at work and one that waits."""
    small, large = points(tmp_path, BAYES)
    outcomes = [(16, 0), (32, 0), (64, 3), (45, 1), (38, 0), (50, 2), (40, 0), (42, 1)]
    done = replace(status(small, outcomes, params=1234567), host="a-node-somewhere", attempts=3)
    at_work = replace(status(large, outcomes), state="running", progress=PROGRESS, host="node")
    waiting = PointStatus(point=replace(large, id="waits"), state="waiting")
    return [done, at_work, waiting]


@pytest.mark.parametrize("width", [120, 200])
def test_long_names_are_cut_in_the_middle(some: list[PointStatus], width: int) -> None:
    """Keys without a value are omitted from names."""
    keys = {f"model.key_{i}": None if i % 2 else i for i in range(16)}
    statuses = [
        replace(some[0], point=replace(some[0].point, swept={**keys, "seed": seed}), host="host")
        for seed in range(3)
    ]
    lines = shown(status_view(statuses, width), width)[1:]
    for seed, (line, point) in enumerate(zip(lines, statuses, strict=True)):
        assert len(line) <= width
        assert emc_text(point.estimate) in line
        assert ending_text(point) in line
        assert f"seed={seed} " in line
        assert "None" not in line


@pytest.mark.parametrize("width", [60, 80, 110, 160])
def test_columns_are_whole_or_gone(some: list[PointStatus], width: int) -> None:
    head, done, at_work, _ = shown(status_view(some, width), width)
    assert max(map(len, (head, done, at_work))) <= width
    assert "…" not in head + done + at_work
    for text in (some[0].point.label, "done", emc_text(some[0].estimate)):
        assert text in done
    assert head.split()[:2] == ["point", "state"]
    if width >= 160:
        assert "a-node-somewhere" in done
        assert "30/300" in at_work
    if width == 110:
        assert ending_text(some[0]) in done
        assert "host" not in head
    results = shown(results_table(some, width), width)
    assert max(map(len, results)) <= width
    assert all("…" not in line for line in results[1:])
    assert emc_text(some[0].estimate) in results[1]


def test_names_are_cut_where_that_leaves_them_apart() -> None:
    kinds = ("linear", "mlp depth=1", "mlp depth=3", "cnn depth=1", "cnn depth=2")
    names = [f"original {kind} width={width}" for kind in kinds for width in (8, 16)]
    lines = shown(table_of([Column(name="point", cells=names, least=22)], 22), 80)
    assert all(len(line) <= 22 for line in lines)
    assert len(set(lines[1:])) == len(names), lines
    assert len({cut(name, 22) for name in names}) < len(names), "a third at the start is not enough"


def test_an_estimate_that_may_move_looks_like_one(some: list[PointStatus]) -> None:
    _, done, at_work, _ = shown(status_view(some, 160), 160)
    assert "~ " + emc_text(some[1].estimate) in at_work
    assert "~ " + emc_text(some[0].estimate) not in done
    console = Console(width=160, file=io.StringIO(), force_terminal=True, color_system="standard")
    console.print(status_view(some, 160))
    line = console.file.getvalue().splitlines()[2]
    assert "\x1b[2;3" in line, "dim and italic"


def test_points_that_fail_for_one_reason_are_one_line(some: list[PointStatus]) -> None:
    """Those that measured something keep their row, and so do two of a kind."""
    why = "data.source: cifar10 was not found in data"
    failed = [
        PointStatus(point=replace(some[0].point, id=f"{i}"), state="failed", message=why)
        for i in range(24)
    ]
    begun = replace(some[1], state="failed", message=why, progress={})
    lines = shown(status_view([some[0], *failed, begun], 160), 160)
    assert len(lines) == 4
    assert lines[-1] == f"24 points ({some[0].point.label} ...) failed: {why}"
    assert "failed" in lines[2]
    assert len(shown(status_view(failed[:2], 160), 160)) == 3
    assert shown(status_view(failed, 160), 160) == [lines[-1]]


def test_each_reason_is_one_line_that_names_its_points(some: list[PointStatus]) -> None:
    failed = [replace(some[0], state="failed", message=why) for why in ("no file", "", "no file")]
    label = some[0].point.label
    assert failure_lines([*failed, some[1]]) == [
        f"failed: {label} and 1 more: no file", f"failed: {label}: {NO_RESULT}",
    ]  # fmt: skip


def test_few_rows_show_what_tells_most(some: list[PointStatus]) -> None:
    many = [some[0]] * 30 + [some[1]]
    lines = shown(status_view(many, 160, rows=6), 160)
    assert len(lines) == 7
    assert "running" in lines[-2]
    assert lines[-1].strip() == "... 26 more"


def test_of_swept_mappings_only_what_differs_is_shown(tmp_path: Path) -> None:
    swept = points_of(
        tmp_path,
        "fixed:\n  data: {source: digits, labels: random}\n"
        "  model: {family: mlp, depth: 1, width: 4}\ngrid:\n  training:\n"
        "    - {optimizer: sgd, steps: 200, lr: 0.1}\n"
        "    - {optimizer: sgd, steps: 200, lr: 0.1, weight_decay: 0.01}\n"
        "    - {optimizer: adam, steps: 200, lr: 0.1}\n",
    )
    waiting = [PointStatus(point=point, state="waiting") for point in swept]
    for count, labels in (
        (3, ["sgd", "sgd weight_decay=0.01", "adam"]), (2, ["sgd", "weight_decay=0.01"]),
    ):  # fmt: skip
        shown = without_shared_entries(waiting[:count])
        assert [status.point.label for status in shown] == labels
    assert without_shared_entries(waiting[:1])[0].point.label == "sgd"


def test_tuned_keys_are_in_the_label(tmp_path: Path) -> None:
    swept = points_of(
        tmp_path,
        "fixed:\n  data: {source: digits}\n  model: {family: mlp, width: 8}\n"
        "grid:\n  training:\n    - {optimizer: sgd, lr: {tune: [0.01, 0.3]}}\n"
        "    - {optimizer: adam, lr: 0.001}\n",
    )
    assert [point.label for point in swept] == ["sgd lr=[0.01, 0.3]", "adam lr=0.001"]
