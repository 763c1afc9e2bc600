"""A point measured again with a different tolerance reuses its training runs."""

from __future__ import annotations

import json
from pathlib import Path

from flexhpc.config import Point
from flexhpc.measuring.point import measure
from flexhpc.store import RunFolder, read_loss_curves, read_point_file
from flexhpc.store.status import StatusReader
from flexhpc.training import Callbacks
from tests.conftest import Cli
from tests.measuring.helpers import CPU, load_point

SPEC = """\
name: precise
fixed:
  data: {source: digits, labels: random, n_max: 400}
  model: {family: linear}
  training: {optimizer: adam, lr: 1e-2, batch_size: 64, epochs: 60}
  search: {policy: bisection, start: 16, tolerance: 0.5}
"""


def state(run: RunFolder, point: Point) -> str:
    return StatusReader(run, [point]).read()[0].state


def training_runs(path: Path) -> list[tuple[object, ...]]:
    probes = read_point_file(path).probes
    curves = [curve.tobytes() for curve in read_loss_curves(path)]
    return [(p.n, p.repeat, p.verdict, c) for p, c in zip(probes, curves, strict=True)]


def test_bisection_continues_to_a_smaller_tolerance(tmp_path: Path) -> None:
    run, scratch = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "scratch")
    wide = load_point(tmp_path, SPEC)
    narrow = load_point(tmp_path, SPEC, "search.tolerance=0.2")
    assert wide.id == narrow.id
    path = run.point_file(wide.id)
    assert measure(wide, run, CPU, Callbacks()).tolerance == 0.5
    before = read_point_file(path).probes
    assert (state(run, wide), state(run, narrow)) == ("done", "stopped")
    estimate = measure(narrow, run, CPU, Callbacks())
    after = read_point_file(path).probes
    assert estimate.tolerance == 0.2
    assert len(after) > len(before)
    assert [p.finished for p in after[: len(before)]] == [p.finished for p in before]
    assert (state(run, wide), state(run, narrow)) == ("done", "done")
    assert measure(wide, run, CPU, Callbacks()) == estimate
    assert [p.finished for p in read_point_file(path).probes] == [p.finished for p in after]
    assert measure(narrow, scratch, CPU, Callbacks()) == estimate
    assert training_runs(scratch.point_file(narrow.id)) == training_runs(path)


def test_sweep_continues_to_a_smaller_tolerance(tmp_path: Path, cli: Cli, profile: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(SPEC)
    rows = []
    for tolerance, to_measure in ((0.5, 1), (0.2, 1), (0.5, 0)):
        change = ("--set", f"search.tolerance={tolerance}")
        assert json.loads(cli("plan", spec, "--json", *change).stdout)["to_measure"] == to_measure
        cli("sweep", spec, "--profile", profile, *change)
        rows += json.loads(cli("results", "runs/precise", "--format", "json").stdout)
    first, second, third = rows
    assert first["point_id"] == second["point_id"]
    assert first["probes"] < second["probes"] == third["probes"]
    assert (second["emc"], second["emc_lo"]) == (third["emc"], third["emc_lo"])
