"""Sweeps that end when their comparison is decided: rounds, interruptions, two sweeps at once."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from flexhpc.analysis.comparison import compare_as_specified
from flexhpc.cli.results import status
from flexhpc.launch.prepare import prepare_run
from flexhpc.launch.profile import LocalProfile
from flexhpc.launch.sweep import write_launch
from flexhpc.store import RunFolder
from flexhpc.store.status import PointStatus, open_run
from flexhpc.tracking.client import mlflow_client
from flexhpc.tracking.description import decision_description
from flexhpc.tracking.state import local_uri
from flexhpc.tracking.sync import Syncer
from tests.barrier import Barrier, wait_for
from tests.command import run_flexhpc
from tests.conftest import Cli, shared_folder
from tests.sweeps import (
    WITH_BARRIER,
    finish_with_status,
    measure_undisturbed,
    probes_in,
    results_by_point,
    running_points,
    start_sweep,
    statuses,
    wait_for_sweep,
)

SPEC = (
    WITH_BARRIER.replace("[10, 14]", "[8, 11]")
    .replace("policy: bisection", "policy: bayes")
    .replace("tolerance: 0.2", "tolerance: 0.4")
    + "  seed: [0, 1]\ncompare: {by: model.kwargs.width, decide: {max_seeds: 3}}\n"
)
PASSES = 50
"""Forward passes between two checks of the state."""
KEYS = "workers: 2\ncheckpoint_every: 0.05\n"


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SPEC)
    return path


@pytest.fixture(scope="module")
def undisturbed_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = shared_folder(
        tmp_path_factory, "decided", lambda folder: measure_undisturbed(folder, SPEC)
    )
    return folder / "runs" / "small"


def verdicts(run: Path) -> list[tuple[str, int]]:
    text = (run / "sweep.yaml").read_text()
    effects = compare_as_specified(statuses(run), [text]).effects
    return [(effect.verdict, effect.pairs) for effect in effects]


def test_a_sweep_ends_when_decided(tmp_path: Path, cli: Cli) -> None:
    """A network of twelve times the width fits more; the coarse EMCs of two seeds show it."""
    text = SPEC.replace("[8, 11]", "[2, 24]").replace("decide: {", "decide: {error: 0.2, ")
    Barrier(tmp_path)
    (tmp_path / "wide.yaml").write_text(text.replace("name: small", "name: wide"))
    planned = cli("plan", "wide.yaml").stdout
    assert "comparisons may need 2 further points with other seeds" in planned
    output = cli("sweep", "wide.yaml").stdout
    assert "24 against 2: larger, ratio" in output
    assert "decided at a cost of" in output
    rows = json.loads(cli("results", "runs/wide", "--format", "json").stdout)
    assert [row["status"] for row in rows] == ["done"] * 4, "no further seed is needed"
    (effect,) = json.loads(cli("compare", "runs/wide", "--json").stdout)
    assert effect["verdict"] == "larger"
    page = (tmp_path / "runs" / "wide" / "report" / "index.html").read_text()
    assert "decided at a cost of" in page
    folder, _, _ = open_run(tmp_path / "runs" / "wide")
    experiment = mlflow_client(local_uri(folder)).get_experiment_by_name("wide")
    assert "- 24 against 2: larger, ratio" in experiment.tags["mlflow.note.content"]


def test_results_do_not_depend_on_a_kill(
    spec: Path, tmp_path: Path, undisturbed_run: Path, cli: Cli
) -> None:
    """SIGKILL of the sweep and its workers while further seeds are measured."""
    run, barrier = tmp_path / "runs" / "small", Barrier(tmp_path)
    barrier.hold(PASSES)
    sweep = start_sweep(spec, keys=KEYS)
    barrier.wait(sweep=sweep)
    while not any(status.point.optional for status in running_points(run)):
        barrier.hold(PASSES)
        barrier.wait(sweep=sweep)
    os.killpg(sweep.pid, signal.SIGKILL)
    for pid in barrier.waiting():
        os.kill(pid, signal.SIGKILL)
    barrier.open()
    wait_for_sweep(sweep)
    wait_for(lambda: not running_points(run), "the end of the workers")
    probes = probes_in(run)
    cli("sweep", spec, "--profile", "profile.yaml")
    assert probes <= probes_in(run), "a finished probe was repeated"
    assert results_by_point(run) == results_by_point(undisturbed_run)
    assert verdicts(run) == verdicts(undisturbed_run)


def test_two_sweeps_at_once_choose_the_same_points(
    spec: Path, tmp_path: Path, undisturbed_run: Path, cli: Cli, profile: Path
) -> None:
    """The second sweep starts while the first one trains."""
    barrier = Barrier(tmp_path)
    barrier.hold(PASSES)
    first = start_sweep(spec, keys="workers: 1\n")
    barrier.wait(sweep=first)
    barrier.open()
    cli("sweep", spec, "--profile", profile)
    finish_with_status(first)
    assert results_by_point(tmp_path / "runs" / "small") == results_by_point(undisturbed_run)


def test_a_finished_run_is_refined_without_repeating_probes(
    spec: Path, tmp_path: Path, undisturbed_run: Path, cli: Cli, profile: Path
) -> None:
    """The section is added to the spec of a run that was measured coarsely."""
    Barrier(tmp_path)
    text = spec.read_text()
    spec.write_text(text[: text.index("compare:")])
    run = tmp_path / "runs" / "small"
    cli("sweep", spec, "--profile", profile, "--set", "search.tolerance=0.5")
    before = probes_in(run)
    decided = cli("compare", run, "--by", "model.kwargs.width", "--decide").stdout
    assert "rounds completed at a cost of" in decided
    spec.write_text(text)
    cli("sweep", spec, "--profile", profile)
    assert before < probes_in(run)
    assert results_by_point(run) == results_by_point(undisturbed_run)


def test_a_sweep_ends_if_refined_points_fail_before_their_first_probe(
    spec: Path, tmp_path: Path, cli: Cli, profile: Path
) -> None:
    """The model can no longer be built after the coarse measurement. The coarse EMCs are kept."""
    (tmp_path / "fragile.py").write_text(
        "from pathlib import Path\nfrom torch import nn\n\n"
        "def build(shape, classes, width):\n"
        "    if Path(__file__).with_name('broken').exists():\n"
        "        raise RuntimeError('out of licences')\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, classes))\n"
    )
    text = spec.read_text().replace("barrier_net:Net", "fragile:build")
    spec.write_text(text[: text.index("compare:")])
    run = tmp_path / "runs" / "small"
    command = ("sweep", spec, "--profile", profile)
    cli(*command, "--set", "search.tolerance=0.5")
    before = results_by_point(run)
    (tmp_path / "broken").touch()
    spec.write_text(text)
    failed = run_flexhpc(tmp_path, *command)
    assert failed.returncode == 1
    assert "out of licences" in failed.stderr
    assert results_by_point(run) == before


def test_status_includes_all_points_of_the_current_round(
    spec: Path, tmp_path: Path, cli: Cli
) -> None:
    """Points with further seeds that no worker has started yet."""
    Barrier(tmp_path)
    prepared = prepare_run(spec, (), tmp_path / "runs")
    further = [point.id for point in prepared.points if point.optional]
    assert len(further) == 2
    for launch, selection in (("a", dict.fromkeys(further, True)), ("b", {})):
        write_launch(prepared, LocalProfile(), launch, None, detach=False, selection=selection)
        rows = json.loads(cli("status", "runs/small", "--json").stdout)
        assert len(rows) == 4 + len(selection)


def test_status_watch_continues_between_two_rounds(
    spec: Path, tmp_path: Path, undisturbed_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All points are done, but the sweep has not yet decided whether it needs another round."""
    Barrier(tmp_path)
    shutil.copytree(undisturbed_run, tmp_path / "runs" / "small")
    prepared = prepare_run(spec, (), tmp_path / "runs")
    selected = {prepared.points[0].id: False}

    def launch(selection: dict[str, bool]) -> None:
        write_launch(prepared, LocalProfile(), "a", None, detach=False, selection=selection)

    refreshes = []

    def end_round(seconds: float) -> None:
        refreshes.append(seconds)
        launch({})

    launch(selected)
    monkeypatch.setattr("flexhpc.cli.results.time", SimpleNamespace(sleep=end_round))
    status(tmp_path / "runs" / "small", watch=True)
    assert len(refreshes) == 1


def test_logged_verdicts_are_not_older_than_the_report(
    tmp_path: Path, undisturbed_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A point and the report are written after the sync has read the points."""
    folder = RunFolder(shutil.copytree(undisturbed_run, tmp_path / "small"))
    point, aside = folder.point_file(statuses(folder.path)[0].point.id), tmp_path / "aside"
    aside.mkdir()
    moved = {path: aside / path.name for path in (point, folder.report)}
    for path, place in moved.items():
        path.rename(place)
    syncer = Syncer(folder, local_uri(folder))
    read = syncer.reader.read

    def read_then_finish() -> list[PointStatus]:
        try:
            return read()
        finally:
            for path, place in moved.items():
                if place.exists():
                    place.rename(path)

    monkeypatch.setattr(syncer.reader, "read", read_then_finish)
    syncer.sync()
    experiment = syncer.client.get_experiment_by_name("small")
    (compare,) = syncer.decided
    expected = decision_description(statuses(folder.path), compare)
    assert expected in experiment.tags["mlflow.note.content"]


def test_detach_is_rejected(spec: Path, tmp_path: Path, cli: Cli) -> None:
    Barrier(tmp_path)
    message = cli("sweep", spec, "--detach", check=2).stderr
    assert "--detach: cannot be combined with compare.decide" in message
