from __future__ import annotations

import json
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import FLEXHPC, Cli

IMPORTS = """
import sys
sys.argv = ["flexhpc", *sys.argv[1:]]
from flexhpc.cli import main
try:
    main()
except SystemExit as ended:
    assert ended.code in (0, None), ended.code
heavy = sorted({"torch", "mlflow", "timm", "torchvision"} & set(sys.modules))
assert not heavy, heavy
"""


def light(*arguments: object) -> str:
    command = [sys.executable, "-c", IMPORTS, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_commands_without_trainings_import_neither_torch_nor_mlflow(
    small_spec: Path, measured: Path, tmp_path: Path
) -> None:
    for verb in ("validate", "plan"):
        assert "3 points" in light(verb, small_spec)
    for verb in ("status", "results"):
        assert "done" in light(verb, measured)
    assert "3 to measure" in light("sweep", small_spec, "--dry-run", "--runs", tmp_path / "runs")
    assert not (tmp_path / "runs").exists(), "a dry run writes nothing"
    text = light("--help")
    for verb in ("validate", "plan", "sweep", "status", "cancel", "results", "report", "probe",
                 "sync", "ui", "doctor", "schema"):  # fmt: skip
        assert verb in text


MEASURES = """
import sys, torch
from pathlib import Path
from flexhpc.measuring.point import measure
from flexhpc.config import checked
from flexhpc.store import RunFolder
from flexhpc.training import Group, Callbacks
(point, *_) = checked(Path(sys.argv[1]))[1]
measure(point, RunFolder(Path(sys.argv[2])), Group(torch.device("cpu")), Callbacks())
heavy = sorted({"torch._dynamo", "torch._inductor", "sklearn", "mlflow"} & set(sys.modules))
assert not heavy, heavy
"""


def test_a_worker_imports_neither_torchs_compiler_nor_mlflow(
    small_spec: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", MEASURES, str(small_spec), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_plan(small_spec: Path, cli: Cli) -> None:
    planned = json.loads(cli("plan", small_spec, "--params", "--json").stdout)
    assert [p["params"] for p in planned["points"]] == [
        64 * w + w + 10 * w + 10 for w in (4, 8, 12)
    ]
    assert planned["to_measure"] == 3
    assert planned["cost_bound"] == sum(p["cost_bound"] for p in planned["points"])
    lines = cli("plan", small_spec, "--params").stdout
    assert planned["points"][0]["id"] in lines
    assert "310 parameters" in lines


def test_plan_knows_what_is_measured(measured: Path, cli: Cli) -> None:
    command = ("plan", measured.parent.parent / "small.yaml", "--runs", measured.parent, "--json")
    assert json.loads(cli(*command).stdout)["to_measure"] == 0
    grown = json.loads(cli(*command, "--set", "model.width=[4,5]").stdout)
    assert [p["state"] for p in grown["points"]] == ["done", "to measure"]


def test_the_measured_cost_is_within_the_planned_bound(
    measured: Path, tmp_path: Path, cli: Cli
) -> None:
    shutil.copytree(measured, tmp_path / "runs" / "small")
    planned = json.loads(cli("plan", measured / "sweep.yaml", "--json").stdout)
    rows = json.loads(cli("results", "small", "--format", "json").stdout)  # known by its name
    assert rows == json.loads(cli("results", "runs/small", "--format", "json").stdout)
    for point, row in zip(planned["points"], rows, strict=True):
        assert 0 < row["cost"] <= point["cost_bound"]


def test_probe_is_the_debugging_door(small_spec: Path, measured: Path, cli: Cli) -> None:
    """One probe by hand ends as the stored one did."""
    rows = json.loads(cli("results", measured, "--format", "json").stdout)
    low, high = rows[1]["largest_fit"], rows[1]["smallest_fail"]
    fitted = cli("probe", small_spec, "--point", rows[1]["point_id"], "--n", low).stdout
    assert "verdict fit: missed 0 of" in fitted
    failed = cli("probe", small_spec, "--point", "1", "--n", high).stdout
    assert "verdict fit" not in failed
    assert "missed samples (global ids)" in failed
    other = cli("probe", small_spec, "--point", "1", "--n", low, "--seed", "99").stdout
    assert other != fitted


def test_probe_with_wrong_arguments(small_spec: Path, cli: Cli) -> None:
    for arguments, expected in (
        (("--n", "5000"), "has only 1797 samples"),
        (("--n", "5", "--point", "zz"), "matches no point"),
        (("--n", "5", "--point", "17"), "matches no point"),
    ):
        assert expected in cli("probe", small_spec, *arguments, check=2).stderr


def test_doctor_and_schema(cli: Cli) -> None:
    said = cli("doctor").stdout
    for name in ("python", "torch", "gpu", "slurm", "containers", "tracking", "data", "disk"):
        assert name in said
    assert json.loads(cli("schema").stdout)["title"] == "flexhpc sweep spec"


def test_parquet_is_not_thrown_at_a_terminal(measured: Path, tmp_path: Path) -> None:
    inner, outer = pty.openpty()
    done = subprocess.run(
        [str(FLEXHPC), "results", str(measured), "--format", "parquet"],
        stdout=outer, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(outer)
    os.close(inner)
    assert done.returncode == 2
    assert "--output" in done.stderr


def test_version_help_and_completion(cli: Cli) -> None:
    assert re.fullmatch(r"flexhpc \d+\.\d+\.\d+\S*", cli("--version").stdout.strip())
    assert cli("-h").stdout == cli("--help").stdout
    assert cli("status", "-h").stdout == cli("status", "--help").stdout
    in_a_shell = ["bash", "-c", f"{shlex.quote(str(FLEXHPC))} --show-completion bash; true"]
    said = subprocess.run(in_a_shell, capture_output=True, text=True, check=True)
    assert "complete -o default" in said.stdout


def test_module_runs_the_command_line(cli: Cli, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flexhpc", "status", "none"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    expected = cli("status", "none", check=2)
    assert done.returncode == 2
    assert (done.stdout, done.stderr) == (expected.stdout, expected.stderr)


DAMAGE = {
    "empty": (lambda content: b"", "empty file"),
    "text": (lambda content: b"not HDF5", "not a point file"),
    "cut short": (lambda content: content[: len(content) // 2], "checksum mismatch"),
    "without a checksum": (lambda content: content[512:], "not a point file"),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "problem"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_point_file_is_reported_with_status_one(
    damage: Callable[[bytes], bytes], problem: str, measured: Path, tmp_path: Path, cli: Cli
) -> None:
    run = Path(shutil.copytree(measured, tmp_path / "runs" / "small"))
    path = min(run.glob("points/*/*.h5"))
    path.write_bytes(damage(path.read_bytes()))
    commands: list[tuple[object, ...]] = [("status",)]
    if problem == "checksum mismatch":
        commands += [
            ("status", "--json"), ("status", "--watch"), ("results",),
            *(("results", "--format", form) for form in ("csv", "json")),
            ("results", "--format", "parquet", "-o", tmp_path / "r.parquet"),
        ]  # fmt: skip
    for verb, *options in commands:
        done = cli(verb, run, *options, check=1)
        (line,) = done.stderr.splitlines()
        assert re.fullmatch(
            rf"failed: width=\d+: {path}: is corrupt \({problem}[^)]*\); move it away, and the "
            "same sweep command measures the point again",
            line,
        ), line
        if "json" in str(options):
            assert len(json.loads(done.stdout)) == 3
        if "csv" in options:
            assert len(done.stdout.splitlines()) == 4


def test_a_run_that_is_not_there_is_said_before_anything_is_imported(tmp_path: Path) -> None:
    program = IMPORTS.replace("in (0, None)", "== 2").replace(
        '"torch", "mlflow", "timm", "torchvision"', '"numpy", "h5py", "rich.console", "scipy"'
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "status", "none"], cwd=tmp_path, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "not a run folder" in done.stderr


def test_wrong_input_is_status_two(cli: Cli) -> None:
    for command in (
        "data check none", "data prepare digits --out /proc/x", "results x --format xml"
    ):  # fmt: skip
        assert cli(*command.split(), check=2).stderr
