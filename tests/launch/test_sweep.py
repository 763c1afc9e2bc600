"""Sweeps as a user runs them: the command, its workers and its files."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from flexhpc.launch.sweep import new_launch_id
from flexhpc.store import read_point_file
from flexhpc.store.status import open_run
from tests.barrier import TIMEOUT
from tests.conftest import FLEXHPC, SMALL_SPEC, Cli
from tests.data.writers import write_images
from tests.point_files import change_fields, edited
from tests.sweeps import results_by_point, states


def test_a_sweep_writes_points_tracking_and_a_report(small_run: Path) -> None:
    _, _, points = open_run(small_run)
    assert len(points) == 3
    for point in points:
        record = read_point_file(small_run / "points" / point.id[:2] / f"{point.id}.h5")
        assert record.estimate is not None
        assert record.estimate.probes == len(record.probes) >= 3
        assert record.header.point == point.canonical
        (device,) = {probe.machine["device"] for probe in record.probes}
    assert (small_run / "mlflow.db").is_file()
    assert device in Path("/proc/cpuinfo").read_text() or device == platform.machine()
    assert f"of training on {device}" in (small_run / "report" / "index.html").read_text()
    record = json.loads((small_run / "run.json").read_text())
    assert record["packages"]["torch"]
    assert len(record["launches"]) == 1
    assert not list(small_run.rglob("*.ckpt"))
    assert not list(small_run.rglob("*.part"))
    outcome = json.loads((small_run.parent.parent / "outcome.json").read_text())
    assert outcome["remaining"] == [], "processes are still running"


def test_a_finished_sweep_is_not_repeated(
    small_run: Path, cli: Cli, profile: Path, tmp_path: Path
) -> None:
    run = tmp_path / "runs" / "small"
    shutil.copytree(small_run, run)
    cli("sweep", small_run.parent.parent / "small.yaml", "--profile", profile)
    assert results_by_point(run) == results_by_point(small_run)
    assert len(json.loads((run / "run.json").read_text())["launches"]) == 1


def test_a_larger_grid_measures_only_new_points(
    small_spec: Path, tmp_path: Path, cli: Cli, profile: Path
) -> None:
    """A partially written claim is removed, whether or not there are points to measure."""
    run = tmp_path / "runs" / "small"
    command = ("sweep", small_spec, "--profile", profile, "--set")
    cli(*command, "model.width=[4]")
    first = results_by_point(run)
    (claim,) = run.glob("points/*/*.claim.json")
    partial = claim.with_name(f".{claim.name}.elsewhere.1.2.part")
    for widths in ("[4]", "[4,5]"):
        partial.write_text("{")
        cli(*command, f"model.width={widths}")
        assert not partial.exists()
    second = results_by_point(run)
    assert len(second) == 2
    assert first.items() <= second.items()


def test_a_different_spec_does_not_replace_the_results_of_a_run(
    small_run: Path, cli: Cli, profile: Path, tmp_path: Path
) -> None:
    run = tmp_path / "runs" / "small"
    shutil.copytree(small_run, run)
    frozen = (run / "sweep.yaml").read_bytes()
    command = ("sweep", small_run.parent.parent / "small.yaml", "--profile", profile)
    error = cli(*command, "--set", "training.lr=0.02", check=2).stderr
    assert "contains the results of a different spec (no point in common)" in error
    assert len(error.splitlines()) == 1
    assert (run / "sweep.yaml").read_bytes() == frozen
    for changed in ("search.tolerance=0.3", "model.width=[4]"):
        assert "4" in cli(*command, "--set", changed).stdout


def test_ctrl_c_interrupts_a_report_after_the_last_probe(
    small_spec: Path, tmp_path: Path, cli: Cli, profile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "runs" / "small"

    def interrupted_report(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(TIMEOUT)
        pytest.fail("Ctrl-C did not interrupt the report")

    with monkeypatch.context() as context:
        context.setattr("flexhpc.analysis.report.report_runs", interrupted_report)
        command = ("sweep", small_spec, "--profile", profile, "--set", "model.width=[4]")
        result = cli(*command, check=130)
    assert "the report was not finished; `flexhpc report " in result.stderr
    assert "EMC" in result.stdout
    assert states(run) == ["done"]
    cli("report", run)
    assert (run / "report" / "index.html").exists()


def test_errors_of_workers_that_cannot_start_are_reported(
    tmp_path: Path, cli: Cli, profile: Path, small_spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fork server fails to import torch; its output is also stored with the logs."""
    (tmp_path / "broken" / "torch").mkdir(parents=True)
    (tmp_path / "broken" / "torch" / "__init__.py").write_text("raise ImportError('no torch here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    monkeypatch.setattr("flexhpc.launch.fork_server.ForkServer._current", None)
    result = cli("sweep", small_spec, "--profile", profile, "--set", "model.width=[4]", check=1)
    assert "its worker ended without a result" in result.stderr
    assert "| ImportError: no torch here" in result.stderr
    subprocess.run(
        [FLEXHPC, "sweep", small_spec, "--profile", profile, "--runs", "detached", "--detach"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    (log,) = (tmp_path / "detached").rglob("fork_server_log.err")
    assert "ImportError: no torch here" in log.read_text()


def test_modules_in_the_working_directory_are_not_imported(
    small_spec: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("numpy", "yaml"):
        (tmp_path / f"{module}.py").write_text("raise ImportError('the wrong module')")
    monkeypatch.setattr("flexhpc.launch.fork_server.ForkServer._current", None)
    result = cli("sweep", small_spec, "--set", "model.width=[4]")
    assert ": done, EMC " in result.stdout
    assert not result.stderr


def test_a_failed_point_is_reported(tmp_path: Path, cli: Cli, profile: Path) -> None:
    spec = tmp_path / "small.yaml"
    spec.write_text(
        SMALL_SPEC.replace("\n  model.width: [4, 8, 12]", "").replace(
            "grid:",
            "zip:\n  - {data.source: [digits, image_folder, image_folder], "
            "data.root: [null, /no, /no], data.labels: [random, random, original]}\n#",
        )
    )
    error = "data.root: /no is not a folder"
    for first in (True, False):
        result = cli("sweep", spec, "--profile", profile, check=1)
        assert f"failed: image_folder /no random and 1 more: {error}" in result.stderr
        assert result.stderr.count("failed: ") == 1
        lines = [line for line in result.stdout.splitlines() if line.startswith("[")]
        assert sum(f": failed: {error}" in line for line in lines) == 1
        assert sum("failed for a reason printed above" in line for line in lines) <= 1
        assert lines[-1].startswith("[3/3]")
        assert sum(": done, EMC " in line for line in lines) == first
    result = cli("results", tmp_path / "runs" / "small", "--format", "json", check=1)
    rows = json.loads(result.stdout)
    assert [row["status"] for row in rows] == ["done", "failed", "failed"]
    assert rows[0]["emc"] > 0


def test_a_corrupt_point_file_is_reported(
    small_spec: Path, tmp_path: Path, cli: Cli, profile: Path
) -> None:
    run, widths = tmp_path / "runs" / "small", ("--set", "model.width=[4,8]")
    corrupt = json.loads(cli("plan", small_spec, "--json", *widths).stdout)["points"][1]["id"]
    path = run / "points" / corrupt[:2] / f"{corrupt}.h5"
    path.parent.mkdir(parents=True)
    path.write_text("not HDF5")
    result = cli("sweep", small_spec, "--profile", profile, *widths, check=1)
    assert "is corrupt (not a point file)" in result.stderr
    assert path.read_text() == "not HDF5"
    status = cli("status", run, "--json", check=1).stdout
    by_point = {row["point_id"]: row["state"] for row in json.loads(status)}
    assert by_point.pop(corrupt) == "failed"
    assert set(by_point.values()) == {"done"}
    path.unlink()
    cli("sweep", small_spec, "--profile", profile, *widths)


def test_changed_data_of_a_point_is_rejected(tmp_path: Path, cli: Cli, profile: Path) -> None:
    for name in ("one", "two"):
        write_images(tmp_path / name, {"a": 12, "b": 12})
    spec = tmp_path / "small.yaml"
    spec.write_text(
        "name: small\nfixed:\n  data: {source: image_folder, root: one}\n"
        "  model: {family: linear}\n  training: {optimizer: adam, epochs: 30}\n"
        "  search: {policy: growth, start: 2, growth: 4}\n"
    )
    cli("sweep", spec, "--profile", profile)
    (path,) = (tmp_path / "runs").rglob("*.h5")
    with edited(path) as file:
        del file["estimate"]
    result = cli("sweep", spec, "--profile", profile, "--set", "data.root=two", check=1)
    assert "was measured on data with fingerprint" in result.stderr
    with edited(path) as file:
        change_fields(file, params=7)
    result = cli("sweep", spec, "--profile", profile, check=1)
    assert "was measured with 7 parameters" in result.stderr


def test_an_unreachable_slurm_controller_is_one_error(
    small_spec: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("sbatch") is None:
        pytest.skip("sbatch is not installed")
    conf = "ClusterName=x\nSlurmctldHost=localhost(127.0.0.1)\nSlurmctldPort=1\nMessageTimeout=1\n"
    (tmp_path / "slurm.conf").write_text(conf + "AuthType=auth/none\n")
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    for option in ((), ("--detach",)):
        error = cli("sweep", small_spec, "--profile", "gpu_cluster", *option, check=1).stderr
        assert error.startswith("SLURM does not respond: ")
        assert "no points were submitted" in error
        assert len(error.splitlines()) == 1
    (tmp_path / "slurm.conf").write_text("Unknown=1\n")
    error = cli("sweep", small_spec, "--profile", "gpu_cluster", check=1).stderr
    assert error.count("squeue: ") == 1, "only the last of several lines of squeue"
    assert not (tmp_path / "runs").exists()


def test_launch_ids_are_unique() -> None:
    assert len({new_launch_id() for _ in range(20)}) == 20


def test_results_do_not_depend_on_the_number_of_processes(tmp_path: Path, cli: Cli) -> None:
    spec = tmp_path / "small.yaml"
    spec.write_text(
        SMALL_SPEC.replace("epochs: 120", "epochs: 120, shards: 2").replace("8, 12", "8")
    )
    results = []
    for processes in (1, 2):
        profile = tmp_path / f"{processes}.yaml"
        profile.write_text(f"tracking_uri: none\nworkers: 1\nprocesses_per_node: {processes}\n")
        cli("sweep", spec, "--profile", profile, "--runs", f"with-{processes}")
        results.append(results_by_point(tmp_path / f"with-{processes}" / "small"))
    assert results[0] == results[1]
    folder, _, points = open_run(tmp_path / "with-2" / "small")
    record = read_point_file(folder.point_file(points[0].id))
    assert {probe.machine["processes"] for probe in record.probes} == {"2"}
