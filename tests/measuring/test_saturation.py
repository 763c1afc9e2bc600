"""Searches that double the budget: continued training runs, interruptions, several processes."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flexhpc.config import Point
from flexhpc.data import load_samples
from flexhpc.errors import Interrupted
from flexhpc.measuring.point import measure
from flexhpc.measuring.probe import run_probe
from flexhpc.search import Probe
from flexhpc.store import RunFolder, read_point_file
from flexhpc.store.status import StatusReader
from flexhpc.tracking.state import local_uri
from flexhpc.training import Callbacks
from tests.barrier import Barrier, wait_for
from tests.conftest import Cli, shared_folder
from tests.measuring.helpers import CPU, load_point, measure_and_count, pool_of, stop_after
from tests.point_files import results_of_point
from tests.sweeps import (
    kill_sweep,
    measure_undisturbed,
    probes_in,
    results_by_point,
    running_points,
    start_sweep,
    statuses,
)
from tests.tracking.test_sync import logged

SPEC = """\
name: saturated
fixed:
  data: {source: digits, labels: random, n_max: 600}
  model: {family: mlp, width: 4, depth: 1}
  training: {optimizer: adam, lr: 1e-2, batch_size: 24, until: saturation, steps: 50}
  search: {policy: bayes, start: 8, at_once: 2, tolerance: 0.8}
"""
MAX_BUDGET = "training.max_budget=200"


@pytest.fixture(scope="module", params=["constant", "wsd"])
def point(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Point:
    folder = tmp_path_factory.mktemp("spec")
    return load_point(folder, SPEC, MAX_BUDGET, f"training.schedule={request.param}")


@pytest.fixture(scope="module")
def undisturbed(point: Point, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, int]:
    """Run of the point measured in one process, and the number of its updates."""

    def measure_once(folder: Path) -> None:
        (folder / "updates").write_text(str(measure_and_count(point, RunFolder(folder / "run"))))

    name = f"saturated-{point.training.schedule}"
    folder = shared_folder(tmp_path_factory, name, measure_once)
    return RunFolder(folder / "run"), int((folder / "updates").read_text())


def test_failed_training_runs_are_continued(
    point: Point, undisturbed: tuple[RunFolder, int]
) -> None:
    run, updates = undisturbed
    record = read_point_file(run.point_file(point.id))
    assert record.estimate.stage >= 2
    assert record.estimate.ended_by in ("saturation", "max_budget")
    entries = Counter((p.n, p.repeat) for p in record.probes)
    assert max(entries.values()) > 1
    for key in entries:
        stages = [p for p in record.probes if (p.n, p.repeat) == key]
        assert [p.stage for p in stages] == sorted({p.stage for p in stages})
        assert all(p.verdict != "fit" for p in stages[:-1])
        for earlier, later in itertools.pairwise(stages):
            assert earlier.steps == 50 * 2**earlier.stage
            assert 45 * 2**earlier.stage < later.steps <= 50 * 2**later.stage
    expected = sum(p.steps for p in record.training_runs)
    if point.training.schedule == "wsd":  # the decay to zero is trained again with every budget
        continued = Counter(p.stage for p in record.probes) - Counter(
            p.stage for p in record.training_runs
        )
        expected += sum(count * 5 * 2**stage for stage, count in continued.items())
    assert updates == expected
    assert not run.checkpoints(point.id)


def test_training_runs_without_a_state_are_repeated(
    point: Point, undisturbed: tuple[RunFolder, int], tmp_path: Path
) -> None:
    """The results are bitwise equal to the results of continued training runs."""
    schedule = f"training.schedule={point.training.schedule}"
    repeated = load_point(tmp_path, SPEC, MAX_BUDGET, schedule, "training.keep_states=0")
    assert repeated.id == point.id
    run = RunFolder(tmp_path)
    assert measure_and_count(repeated, run) > undisturbed[1]
    assert results_of_point(point, run) == results_of_point(point, undisturbed[0])


@pytest.mark.parametrize(
    ("point", "fraction", "damage"),
    [
        ("constant", 0.2, None),
        ("wsd", 0.2, None),
        ("constant", 0.5, b""),
        ("constant", 0.9, b"x" * 100),
    ],
    ids=["intact states", "intact states, wsd", "empty states", "corrupt states"],
    indirect=["point"],
)
def test_interrupted_search_is_resumed_bitwise(
    fraction: float, damage: bytes | None, point: Point, undisturbed: tuple[RunFolder, int],
    tmp_path: Path,
) -> None:  # fmt: skip
    run, (expected, updates) = RunFolder(tmp_path), undisturbed
    with pytest.raises(Interrupted):
        measure(point, run, CPU, stop_after(round(fraction * updates)))
    states = [path for path in run.checkpoints(point.id) if ".final." in path.name]
    assert states
    if damage is not None:
        for path in states:
            path.write_bytes(damage)
    measure(point, run, CPU, Callbacks())
    assert results_of_point(point, run) == results_of_point(point, expected)
    assert not run.checkpoints(point.id)


def test_sweep_killed_in_a_continued_training_run_is_resumed_bitwise(
    tmp_path: Path, cli: Cli
) -> None:
    """The sweep and its worker are killed in the middle of the first continued training run."""
    text = SPEC.replace("name: saturated", "name: small").replace("at_once: 2", "at_once: 1")
    text = text.replace("family: mlp, width: 4, depth: 1", 'family: "barrier_net:Net"')
    text = text.replace("steps: 50", "steps: 50, max_budget: 200")
    (tmp_path / "undisturbed").mkdir()
    expected = measure_undisturbed(tmp_path / "undisturbed", text)
    (status,) = statuses(expected)
    passes, steps = 0, Counter[tuple[int, int]]()
    for probe in status.record.probes:
        previous, steps[probe.n, probe.repeat] = steps[probe.n, probe.repeat], probe.steps
        if previous:
            passes += (probe.steps - previous) // 2
            break
        passes += probe.steps
    assert previous
    barrier, spec, run = Barrier(tmp_path), tmp_path / "small.yaml", tmp_path / "runs" / "small"
    spec.write_text(text)
    barrier.hold(passes)
    sweep = start_sweep(spec, keys="workers: 1\ncheckpoint_every: 0.01\n")
    barrier.wait(sweep=sweep)
    assert any(".final." in path.name for path in RunFolder(run).checkpoints(status.point.id))
    probes = probes_in(run)
    kill_sweep(sweep)
    wait_for(lambda: not running_points(run), "the end of the worker")
    barrier.open()
    cli("sweep", spec, "--profile", "profile.yaml")
    assert probes <= probes_in(run), "a finished probe was repeated"
    assert results_by_point(run) == results_by_point(expected)


def test_checkpoint_of_a_decay_is_not_continued_with_a_larger_budget(tmp_path: Path) -> None:
    point = load_point(tmp_path, SPEC, MAX_BUDGET, "training.schedule=wsd")
    samples, path = load_samples(point.data, point.seed), tmp_path / "run.ckpt"
    with pytest.raises(Interrupted):  # the learning rate decays from update 45
        run_probe(point, samples, Probe(400, 0), path, CPU, stop_after(48))
    assert path.exists()
    probe = Probe(400, 0, stage=1)
    continued, fresh = (
        run_probe(point, samples, probe, saved, CPU, Callbacks()) for saved in (path, None)
    )
    assert (continued.steps, continued.loss) == (fresh.steps, fresh.loss)


def test_full_disk_loses_no_result(
    small_disk: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A state (900 kB) does not fit on the disk; training runs are repeated instead."""
    point = load_point(tmp_path, SPEC, "model.width=1000", "training.max_budget=100")
    run, full = RunFolder(tmp_path / "run"), RunFolder(small_disk("700k"))
    measure(point, run, CPU, Callbacks())
    assert not capsys.readouterr().out
    measure(point, full, CPU, Callbacks())
    assert "cannot save" in capsys.readouterr().out
    assert results_of_point(point, full) == results_of_point(point, run)
    assert not full.checkpoints(point.id)


@pytest.mark.parametrize("point", ["constant"], indirect=True)
def test_pool_equals_one_process(
    point: Point, undisturbed: tuple[RunFolder, int], tmp_path: Path
) -> None:
    run = RunFolder(tmp_path)
    with pool_of(2) as pool:
        measure(point, run, CPU, Callbacks(), pool)
    assert results_of_point(point, run) == results_of_point(point, undisturbed[0])


@pytest.mark.parametrize("point", ["constant"], indirect=True)
def test_two_processes_equal_one_process(
    point: Point, undisturbed: tuple[RunFolder, int], cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "saturated.yaml").write_text(SPEC)
    (tmp_path / "profile.yaml").write_text("processes_per_node: 2\n")
    cli("sweep", "saturated.yaml", "--profile", "profile.yaml", "--set", MAX_BUDGET)
    measured = results_of_point(point, RunFolder(tmp_path / "runs" / "saturated"))
    assert measured["probes"] == results_of_point(point, undisturbed[0])["probes"]
    (row,) = json.loads(cli("results", "runs/saturated", "--format", "json").stdout)
    estimate = measured["estimate"]
    assert row["ended_by"] == estimate.ended_by
    assert row["saturated"] == estimate.saturated
    assert (row["saturated"] == "yes") == (estimate.ended_by == "saturation")
    budget = 50 * 2**estimate.stage
    rows = cli("results", "runs/saturated", "--format", "json", "--budget", budget // 2).stdout
    (at_half,) = json.loads(rows)
    assert 0 < at_half[f"emc_budget_{budget // 2}"] <= row["emc"]
    run = RunFolder(tmp_path / "runs" / "saturated")
    assert row["cost"] == sum(
        run.cost for run in read_point_file(run.point_file(point.id)).training_runs
    )
    stages: dict[tuple[str, str], list[Any]] = {}
    _, children = logged(local_uri(run), "saturated")
    for child in sorted(children, key=lambda child: child.info.run_name):
        params = child.data.params
        assert f" steps={params['steps']} {params['verdict']}" in child.info.run_name
        stages.setdefault((params["n"], params["repeat"]), []).append(child)
    continued = [run for run in stages.values() if len(run) > 1]
    assert continued
    for earlier, later in itertools.chain.from_iterable(map(itertools.pairwise, continued)):
        assert int(later.data.params["steps"]) > int(earlier.data.params["steps"])
        assert later.info.start_time >= earlier.info.end_time - 1  # rounded to milliseconds


def test_larger_budget_continues_a_measured_point(tmp_path: Path) -> None:
    small, large = (load_point(tmp_path, SPEC, f"training.max_budget={b}") for b in (100, 200))
    assert small.id == large.id
    run = RunFolder(tmp_path / "run")
    estimate = measure(small, run, CPU, Callbacks())
    assert (estimate.stage, estimate.ended_by, estimate.saturated) == (1, "max_budget", "no")
    before = read_point_file(run.point_file(small.id)).probes
    (status,) = StatusReader(run, [large]).read()
    assert status.state == "stopped"
    assert measure(large, run, CPU, Callbacks()).stage > 1
    after = read_point_file(run.point_file(small.id)).probes
    assert [p.finished for p in after[: len(before)]] == [p.finished for p in before]
    (status,) = StatusReader(run, [large]).read()
    assert status.state == "done"
