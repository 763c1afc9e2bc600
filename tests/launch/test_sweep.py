"""Sweeps as a user runs them: the real command, real workers, real files."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from flexhpc.launch.sweep import launch_id
from flexhpc.store import read
from flexhpc.store.status import StatusReader, open_run
from tests.barrier import PATIENCE
from tests.conftest import FLEXHPC, SMALL, Cli
from tests.contents import change_fields, edited
from tests.sweeps import contents


def test_a_sweep_ends_with_a_table_a_report_and_tracking(measured: Path) -> None:
    _, _, points = open_run(measured)
    assert len(points) == 3
    for point in points:
        record = read(measured / "points" / point.id[:2] / f"{point.id}.h5")
        assert record.estimate is not None
        assert record.estimate.probes == len(record.probes) >= 3
        assert record.header.point == point.canonical
        (device,) = {probe.machine["device"] for probe in record.probes}
    assert (measured / "mlflow.db").is_file()
    assert device in Path("/proc/cpuinfo").read_text() or device == platform.machine()
    assert f"of training on {device}" in (measured / "report" / "index.html").read_text()
    record = json.loads((measured / "run.json").read_text())
    assert record["packages"]["torch"]
    assert len(record["launches"]) == 1
    assert not list(measured.rglob("*.ckpt"))
    assert not list(measured.rglob("*.part"))


def test_repeating_measures_nothing(measured: Path, cli: Cli, untracked: Path) -> None:
    spec = measured.parent.parent / "small.yaml"
    before = contents(measured)
    cli("sweep", spec, "--profile", untracked, "--runs", measured.parent)
    assert contents(measured) == before
    assert len(json.loads((measured / "run.json").read_text())["launches"]) == 1


def test_a_bigger_grid_measures_only_what_is_new(tmp_path: Path, cli: Cli, untracked: Path) -> None:
    """A claim that was half written is removed, whether there is something to measure or not."""
    spec, run = tmp_path / "small.yaml", tmp_path / "runs" / "small"
    spec.write_text(SMALL.replace("[4, 8, 12]", "[4]"))
    cli("sweep", spec, "--profile", untracked)
    first = contents(run)
    (claim,) = run.glob("points/*/*.claim.json")
    half = claim.with_name(f".{claim.name}.elsewhere.1.2.part")
    for more in ((), ("--set", "model.width=[4,5]")):
        half.write_text("{")
        cli("sweep", spec, "--profile", untracked, *more)
        assert not half.exists()
    second = contents(run)
    assert len(second) == 2
    assert first.items() <= second.items()


def test_ctrl_c_breaks_off_a_report_and_loses_nothing(
    tmp_path: Path, cli: Cli, untracked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = tmp_path / "small.yaml"
    spec.write_text(SMALL.replace("[4, 8, 12]", "[4]"))
    endless = threading.Event()

    def drawn(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        endless.wait(PATIENCE)
        pytest.fail("Ctrl-C did not end the report")

    with monkeypatch.context() as slow:
        slow.setattr("flexhpc.analysis.report.report_runs", drawn)
        done = cli("sweep", spec, "--profile", untracked, check=130)
    assert "the report was not finished; `flexhpc report " in done.stderr
    assert "EMC" in done.stdout
    assert (status_of(tmp_path / "runs" / "small")) == ["done"]
    cli("report", tmp_path / "runs" / "small")
    assert (tmp_path / "runs" / "small" / "report" / "index.html").exists()


def status_of(run: Path) -> list[str]:
    folder, _, points = open_run(run)
    return [one.state for one in StatusReader(folder, points).read()]


def test_workers_that_cannot_be_started_say_why(
    tmp_path: Path, cli: Cli, untracked: Path, small_spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here as their process ends while it imports torch; what it wrote is kept with the logs."""
    (tmp_path / "broken" / "torch").mkdir(parents=True)
    (tmp_path / "broken" / "torch" / "__init__.py").write_text("raise ImportError('no torch here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    monkeypatch.setattr("flexhpc.launch.fork_server.ForkServer._current", None)
    done = cli("sweep", small_spec, "--profile", untracked, "--set", "model.width=[4]", check=1)
    assert "its worker ended without a result" in done.stderr
    assert "| ImportError: no torch here" in done.stderr
    subprocess.run(
        [FLEXHPC, "sweep", small_spec, "--profile", untracked, "--runs", "detached", "--detach"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    (log,) = (tmp_path / "detached").rglob("fork_server_log.err")
    assert "ImportError: no torch here" in log.read_text()


def test_a_failed_point_is_reported(tmp_path: Path, cli: Cli, untracked: Path) -> None:
    spec = tmp_path / "small.yaml"
    spec.write_text(
        SMALL.replace("\n  model.width: [4, 8, 12]", "").replace(
            "grid:",
            "zip:\n  - {data.source: [digits, image_folder, image_folder], "
            "data.root: [null, /no, /no], data.labels: [random, random, original]}\n#",
        )
    )
    for again in (False, True):
        done = cli("sweep", spec, "--profile", untracked, check=1)
        why = "data.root: /no is not a folder"
        assert f"failed: image_folder /no random and 1 more: {why}" in done.stderr
        assert done.stderr.count("failed: ") == 1
        told = [line for line in done.stdout.splitlines() if line.startswith("[")]
        assert sum(f": failed {why}" in line for line in told) == 1
        assert sum("failed for the same reason as before" in line for line in told) <= 1
        assert [line[:5] for line in told][-1] == "[3/3]"
        assert sum(": done " in line for line in told) == (0 if again else 1)
    done = cli("results", tmp_path / "runs" / "small", "--format", "json", check=1)
    rows = json.loads(done.stdout)
    assert [row["status"] for row in rows] == ["done", "failed", "failed"]
    assert rows[0]["emc"] > 0


def test_a_corrupt_point_file_is_reported(tmp_path: Path, cli: Cli, untracked: Path) -> None:
    spec = tmp_path / "small.yaml"
    spec.write_text(SMALL.replace("[4, 8, 12]", "[4, 8]"))
    bad = json.loads(cli("plan", spec, "--json").stdout)["points"][1]["id"]
    path = tmp_path / "runs" / "small" / "points" / bad[:2] / f"{bad}.h5"
    path.parent.mkdir(parents=True)
    path.write_text("not HDF5")
    done = cli("sweep", spec, "--profile", untracked, check=1)
    assert "is corrupt (not a point file)" in done.stderr
    assert path.read_text() == "not HDF5"
    status = cli("status", tmp_path / "runs" / "small", "--json", check=1).stdout
    states = {row["point_id"]: row["state"] for row in json.loads(status)}
    assert states.pop(bad) == "failed"
    assert set(states.values()) == {"done"}
    path.unlink()
    cli("sweep", spec, "--profile", untracked)


def test_other_data_under_the_same_id_is_refused(tmp_path: Path, cli: Cli, untracked: Path) -> None:
    from tests.data.test_files import write_images

    for name in ("one", "two"):
        write_images(tmp_path / name, {"a": 12, "b": 12})
    spec = tmp_path / "small.yaml"
    spec.write_text(
        "name: small\nfixed:\n  data: {source: image_folder, root: one}\n"
        "  model: {family: linear}\n  training: {optimizer: adam, epochs: 30}\n"
        "  search: {policy: growth, start: 2, growth: 4}\n"
    )
    cli("sweep", spec, "--profile", untracked)
    point = json.loads(cli("plan", spec, "--json").stdout)["points"][0]["id"]
    with edited(next((tmp_path / "runs").rglob(f"{point}.h5"))) as file:
        del file["estimate"]
    done = cli("sweep", spec, "--profile", untracked, "--set", "data.root=two", check=1)
    assert "was measured on other data" in done.stderr
    with edited(next((tmp_path / "runs").rglob(f"{point}.h5"))) as file:
        change_fields(file, params=7)
    done = cli("sweep", spec, "--profile", untracked, check=1)
    assert "was measured with 7 parameters" in done.stderr


def test_launches_of_one_second_are_told_apart() -> None:
    assert len({launch_id() for _ in range(20)}) == 20


def test_nothing_of_a_sweep_is_left_running(measured: Path) -> None:
    outcome = json.loads((measured.parent.parent / "outcome.json").read_text())
    assert outcome["left"] == []


def test_two_processes_on_one_point_end_with_the_same_bits(tmp_path: Path, cli: Cli) -> None:
    """On this machine as on a cluster: the number of processes is no part of a result."""
    spec = tmp_path / "small.yaml"
    spec.write_text(SMALL.replace("epochs: 120", "epochs: 120, shards: 2").replace("8, 12", "8"))
    found = []
    for processes in (1, 2):
        profile = tmp_path / f"{processes}.yaml"
        profile.write_text(f"tracking_uri: none\nworkers: 1\nprocesses_per_node: {processes}\n")
        cli("sweep", spec, "--profile", profile, "--runs", f"with-{processes}")
        found.append(contents(tmp_path / f"with-{processes}" / "small"))
    assert found[0] == found[1]
    folder, _, points = open_run(tmp_path / "with-2" / "small")
    record = read(folder.point(points[0].id))
    assert {probe.machine["processes"] for probe in record.probes} == {"2"}
