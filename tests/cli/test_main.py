from __future__ import annotations

import json
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import FLEXHPC, SMALL_SPEC, Cli

COMMAND = """
import sys
status, modules = int(sys.argv[1]), sys.argv[2].split(",")
sys.argv = ["flexhpc", *sys.argv[3:]]
from flexhpc.cli import main
try:
    main()
    ended = 0
except SystemExit as error:
    ended = error.code or 0
assert ended == status, ended
imported = sorted({*modules} & {*sys.modules})
assert not imported, imported
"""
"""Runs a command; fails if it exits with a different status or imports one of the modules."""

MEASURE = """
import sys, torch
from pathlib import Path
from flexhpc.measuring.point import measure
from flexhpc.config import load_points
from flexhpc.store import RunFolder
from flexhpc.training import Group, Callbacks
(point, *_) = load_points(Path(sys.argv[1]))[1]
measure(point, RunFolder(Path(sys.argv[2])), Group(torch.device("cpu")), Callbacks())
imported = sorted({"torch._dynamo", "torch._inductor", "sklearn", "mlflow"} & set(sys.modules))
assert not imported, imported
"""


def run_python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result


def run_without_torch(*arguments: object) -> str:
    return run_python(COMMAND, 0, "torch,mlflow,timm,torchvision", *arguments).stdout


def test_commands_without_training_import_neither_torch_nor_mlflow(
    small_spec: Path, small_run: Path, tmp_path: Path
) -> None:
    for verb in ("validate", "plan"):
        assert "3 points" in run_without_torch(verb, small_spec)
    for verb in ("status", "results"):
        assert "done" in run_without_torch(verb, small_run)
    dry_run = ("--dry-run", "--runs", tmp_path / "runs")
    assert "3 to measure" in run_without_torch("sweep", small_spec, *dry_run)
    assert not (tmp_path / "runs").exists(), "a dry run writes no file"
    text = run_without_torch("--help")
    for verb in ("validate", "plan", "sweep", "status", "cancel", "results", "report", "probe",
                 "sync", "ui", "doctor", "schema"):  # fmt: skip
        assert verb in text


def test_a_missing_run_is_reported_before_large_packages_are_imported(tmp_path: Path) -> None:
    run = tmp_path / "none"
    result = run_python(COMMAND, 2, "numpy,h5py,rich.console,scipy", "status", run)
    assert "not a run folder" in result.stderr


def test_a_worker_imports_neither_the_torch_compiler_nor_mlflow(
    small_spec: Path, tmp_path: Path
) -> None:
    run_python(MEASURE, small_spec, tmp_path / "run")


def test_plan_counts_points_parameters_and_cost(small_spec: Path, cli: Cli) -> None:
    plan = json.loads(cli("plan", small_spec, "--params", "--json").stdout)
    assert [p["params"] for p in plan["points"]] == [64 * w + w + 10 * w + 10 for w in (4, 8, 12)]
    assert plan["to_measure"] == 3
    assert plan["cost_bound"] == sum(p["cost_bound"] for p in plan["points"])
    table = cli("plan", small_spec, "--params").stdout
    assert plan["points"][0]["id"] in table
    assert "310 parameters" in table


def test_plan_extrapolates_the_time_from_a_few_updates(small_spec: Path, cli: Cli) -> None:
    # The data need not exist.
    command = ("plan", small_spec, "--set", "data.source=cifar10", "--time")
    plan = json.loads(cli(*command, "--json").stdout)
    assert plan["time_bound"] > 0
    text = cli(*command, "--set", "model.width=[4]").stdout
    assert re.search("time at most .*, extrapolated from a few updates on this machine", text)
    error = cli(*command, "--profile", "gpu_cluster", check=2).stderr
    assert error.startswith("--time: cannot be combined with a SLURM profile")


def test_plan_excludes_measured_points(small_run: Path, cli: Cli) -> None:
    command = ("plan", small_run.parent.parent / "small.yaml", "--runs", small_run.parent, "--json")
    assert json.loads(cli(*command).stdout)["to_measure"] == 0
    larger = json.loads(cli(*command, "--set", "model.width=[4,5]").stdout)
    assert [p["state"] for p in larger["points"]] == ["done", "to measure"]


def test_the_measured_cost_is_within_the_planned_bound(
    small_run: Path, tmp_path: Path, cli: Cli
) -> None:
    shutil.copytree(small_run, tmp_path / "runs" / "small")
    plan = json.loads(cli("plan", small_run / "sweep.yaml", "--json").stdout)
    rows = json.loads(cli("results", "small", "--format", "json").stdout)  # the name of the run
    assert rows == json.loads(cli("results", "runs/small", "--format", "json").stdout)
    for point, row in zip(plan["points"], rows, strict=True):
        assert 0 < row["cost"] <= point["cost_bound"]


def test_probe_repeats_a_stored_probe(small_spec: Path, small_run: Path, cli: Cli) -> None:
    row = json.loads(cli("results", small_run, "--format", "json").stdout)[1]
    low, high = row["largest_fit"], row["smallest_fail"]
    fit = cli("probe", small_spec, "--point", row["point_id"], "--n", low).stdout
    assert "verdict fit: missed 0 of" in fit
    fail = cli("probe", small_spec, "--point", "1", "--n", high).stdout
    assert "verdict fit" not in fail
    assert "missed samples (global ids)" in fail
    different_seed = cli("probe", small_spec, "--point", "1", "--n", low, "--seed", "99").stdout
    assert different_seed != fit


def test_missing_data_is_reported_before_workers_start(tmp_path: Path, cli: Cli) -> None:
    spec = tmp_path / "cifar.yaml"
    spec.write_text(SMALL_SPEC.replace("digits", "cifar10"))
    missing = "data.source: cifar10 was not found in "
    for verb in ("validate", "plan"):
        output = cli(verb, spec).stdout
        assert output.count(missing) == 1
        assert "; `flexhpc data prepare cifar10` downloads it; or get " in output
    for option in ((), ("--detach",)):
        error = cli("sweep", spec, *option, "--set", "data.root=/no", check=2).stderr
        assert error.startswith("data.source: cifar10 was not found in /no ")
        assert len(error.splitlines()) == 1
        assert not (tmp_path / "runs").exists()


def test_doctor_and_schema(cli: Cli) -> None:
    output = cli("doctor").stdout
    for name in ("python", "torch", "gpu", "slurm", "containers", "tracking", "data", "disk"):
        assert name in output
    assert json.loads(cli("schema").stdout)["title"] == "flexhpc sweep spec"


def test_parquet_is_not_written_to_a_terminal(small_run: Path) -> None:
    inner, outer = pty.openpty()
    result = subprocess.run(
        [str(FLEXHPC), "results", str(small_run), "--format", "parquet"],
        stdout=outer, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(outer)
    os.close(inner)
    assert result.returncode == 2
    assert "--output" in result.stderr


def test_version_help_and_completion(cli: Cli) -> None:
    assert re.fullmatch(r"flexhpc \d+\.\d+\.\d+\S*", cli("--version").stdout.strip())
    assert cli("-h").stdout == cli("--help").stdout
    assert cli("status", "-h").stdout == cli("status", "--help").stdout
    in_bash = ["bash", "-c", f"{shlex.quote(str(FLEXHPC))} --show-completion bash; true"]
    completion = subprocess.run(in_bash, capture_output=True, text=True, check=True).stdout
    assert "complete -o default" in completion


def test_the_module_is_the_same_command(cli: Cli, tmp_path: Path) -> None:
    """A module in the working directory does not shadow a library."""
    (tmp_path / "typer.py").write_text("raise SystemExit(3)")
    command = [sys.executable, "-m", "flexhpc", "status", "none"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    expected = cli("status", "none", check=2)
    assert result.returncode == 2
    assert (result.stdout, result.stderr) == (expected.stdout, expected.stderr)


def test_a_damaged_point_file_is_reported_with_status_one(
    small_run: Path, tmp_path: Path, cli: Cli
) -> None:
    run = Path(shutil.copytree(small_run, tmp_path / "runs" / "small"))
    path = min(run.glob("points/*/*.h5"))
    path.write_bytes(path.read_bytes()[:-1])
    for verb, *options in (
        ("status",), ("status", "--json"), ("status", "--watch"), ("results",),
        ("results", "--format", "csv"), ("results", "--format", "json"),
        ("results", "--format", "parquet", "-o", tmp_path / "r.parquet"),
    ):  # fmt: skip
        result = cli(verb, run, *options, check=1)
        (line,) = result.stderr.splitlines()
        assert re.fullmatch(
            rf"failed: width=\d+: {path}: is corrupt \(checksum mismatch[^)]*\); move it elsewhere "
            "and repeat the sweep command, which measures the point again",
            line,
        ), line
        if "json" in str(options):
            assert len(json.loads(result.stdout)) == 3
        if "csv" in options:
            assert len(result.stdout.splitlines()) == 4
