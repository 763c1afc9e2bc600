"""A run folder written by an earlier flexhpc: everything can be read, and the sweep goes on.

old_run.tar.xz was written by commit 1a6354cf1482, before rooms and names were changed: one of its
two points is done, the other was interrupted in the middle of a probe. Its spec is SPEC.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flexhpc.store import PointRecord, read, read_masks
from flexhpc.store.status import open_run
from tests.archives import unpack
from tests.conftest import Cli

SPEC = """\
name: old
fixed:
  data: {source: digits, labels: random, n_max: 400}
  model: {family: mlp, width: 4, depth: 1}
  training: {optimizer: adam, lr: {tune: [3e-3, 3e-2]}, batch_size: 64, epochs: 100}
  search: {policy: bayes, start: 16, tolerance: 0.3}
grid:
  model.width: [3, 6]
"""
PROBES = (110, 28)
"""Finished in the old run, by point."""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    unpack(Path(__file__).with_name("old_run.tar.xz"), tmp_path / "runs")
    (tmp_path / "old.yaml").write_text(SPEC)
    return tmp_path / "runs" / "old"


def records(run: Path) -> list[PointRecord | None]:
    folder, _, points = open_run(run)
    return [read(folder.point(point.id)) for point in points]


def kept(record: PointRecord | None) -> list[tuple[object, ...]]:
    assert record is not None
    return [
        (p.n, p.repeat, p.arm, p.verdict, p.n_errors, p.cost, p.finished, p.loss_curve.tobytes())
        for p in record.probes
    ]


def test_it_can_be_read(run: Path, cli: Cli) -> None:
    states = [point["state"] for point in json.loads(cli("status", run, "--json").stdout)]
    assert states[0] == "done"
    assert states[1] not in ("done", "failed")
    done, begun = json.loads(cli("results", run, "--format", "json").stdout)
    assert (done["status"], done["emc"], done["emc_lo"], done["emc_hi"]) == ("done", 11, 8, 14)
    assert (done["probes"], begun["probes"]) == PROBES
    assert Path(cli("report", run).stdout.strip()).is_file()
    assert f"{sum(PROBES)} probes logged" in cli("sync", run).stdout
    folder, _, points = open_run(run)
    assert len(read_masks(folder.point(points[0].id)).n) == PROBES[0]


def test_the_same_command_goes_on_with_it(run: Path, cli: Cli, untracked: Path) -> None:
    before = [kept(record) for record in records(run)]
    assert tuple(map(len, before)) == PROBES
    cli("sweep", "old.yaml", "--profile", untracked)
    after = records(run)
    assert kept(after[0]) == before[0]
    assert kept(after[1])[: PROBES[1]] == before[1]
    assert after[1] is not None
    assert after[1].estimate is not None
    assert after[1].estimate["ended_by"] in ("tolerance", "max_trainings")
    assert not list(run.rglob("*.ckpt"))
    assert sorted(path.name for path in run.parent.iterdir()) == ["old"]
