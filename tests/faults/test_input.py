"""Malicious and malformed specs, profiles, names and state files."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from tests.command import flexhpc_output, run_flexhpc
from tests.conftest import FLEXHPC, Cli
from tests.data.writers import write_images

SPEC = """\
name: q
fixed:
  data: {source: digits, labels: random}
  model: {family: mlp, width: 8, depth: 1}
  training: {optimizer: adam, lr: LR, epochs: EPOCHS}
  search: {policy: bisection}
"""
VALID = SPEC.replace("LR", "1e-2").replace("EPOCHS", "10")
HUGE = "1" + "0" * 399


def errors_of(folder: Path, spec: str, *options: str, command: str = "validate") -> list[str]:
    """Run a command that rejects a spec; return its error messages."""
    (folder / "q.yaml").write_text(spec)
    output = run_flexhpc(folder, command, "q.yaml", *options)
    assert output.returncode == 2, output.stdout + output.stderr
    assert "Traceback" not in output.stderr
    lines = output.stderr.splitlines()
    assert all(line.isprintable() for line in lines)
    return lines


@pytest.mark.parametrize("epochs", [".inf", "banana", "-3", HUGE])
def test_a_fixed_value_that_the_grid_replaces_is_checked(tmp_path: Path, epochs: str) -> None:
    grid = "grid: {training.epochs: [10, 20]}\n"
    spec = SPEC.replace("LR", "1e-2").replace("EPOCHS", epochs)
    (line,) = errors_of(tmp_path, spec + grid)
    assert line.startswith("q.yaml:5: training.epochs: must be ")
    (tmp_path / "q.yaml").write_text(VALID + grid)
    flexhpc_output(tmp_path, "validate", "q.yaml")


def test_options_must_be_one_line(tmp_path: Path) -> None:
    (line,) = errors_of(tmp_path, VALID, "--set", "model.width=5\nmodel.depth=3")
    assert "must be one line" in line
    runs = ("--runs", "a\nscancel -u root\n")
    assert "contains a control character" in errors_of(tmp_path, VALID, *runs, command="sweep")[0]


@pytest.mark.parametrize("rate", [HUGE, f"[{HUGE}, 0.1]", f"{{tune: [0.1, {HUGE}]}}"])
def test_numbers_that_overflow_are_rejected(tmp_path: Path, rate: str) -> None:
    (line,) = errors_of(tmp_path, SPEC.replace("EPOCHS", "10").replace("LR", rate))
    assert line.startswith("q.yaml:5: training.lr: ")


def test_more_than_100_000_points_are_rejected(tmp_path: Path) -> None:
    keys = ("width", "depth", "gain")
    for axes, count in ((20, "100,000,000,000,000,000,000"), (6, "1,000,000")):
        grid = "".join(
            f"  model.{keys[i % 3]}{i}: [{','.join('0123456789')}]\n" for i in range(axes)
        )
        (line,) = errors_of(tmp_path, f"{VALID}grid:\n{grid}")
        assert f"grid: {count} points exceed the maximum of 100,000; split the sweep" in line


@pytest.mark.parametrize("name", ["-rf", "--help", "a/b", "..", "a b", "[/]"])
def test_invalid_names_are_rejected(tmp_path: Path, name: str) -> None:
    (line,) = errors_of(tmp_path, VALID.replace("name: q", f"name: '{name}'"))
    assert ": name: " in line


@pytest.mark.parametrize("character", ["\\0", "\\n", "\\e", "\\x7f", "\\L"])
def test_control_characters_are_rejected(tmp_path: Path, character: str) -> None:
    data = f'{{source: image_folder, root: pictures, name: "a{character}b"}}'
    spec = VALID.replace("{source: digits, labels: random}", data)
    assert any(
        "data.name: contains a control character" in line for line in errors_of(tmp_path, spec)
    )


@pytest.mark.parametrize(
    "profile",
    ['sbatch: {"comment=x --array": "0-99"}', 'sbatch: {"a\\nscancel": 3}',
     'sbatch: {mail-user: "x\\nscancel -u root"}', 'sbatch: {"-": 1}', f"time: {HUGE}",
     "time: " + "9" * 290, 'setup: ["a\\nb"]', "tracking_uri: https://user:secret@host"],
)  # fmt: skip
def test_malicious_profiles_are_rejected(tmp_path: Path, profile: str) -> None:
    (tmp_path / "p.yaml").write_text(f"cluster: slurm\n{profile}\n")
    options = ("--profile", "p.yaml", "--dry-run")
    lines = errors_of(tmp_path, VALID, *options, command="sweep")
    assert all(line.startswith("p.yaml:2: ") for line in lines)
    assert "secret" not in "".join(lines)


def test_a_password_on_the_command_line_is_rejected(small_run: Path, cli: Cli) -> None:
    for uri in ("https://user:secret@host", "postgresql://h/db?Password=secret"):
        output = cli("sync", small_run, "--uri", uri, check=2)
        assert "MLFLOW_TRACKING_PASSWORD" in output.stderr
        assert "secret" not in output.stdout + output.stderr


def test_markup_and_formulas_in_names_are_escaped(tmp_path: Path, profile: Path) -> None:
    """In the live table, in results, in the report and its figures."""
    names = ["[/]", "[bold]x", "$", "a$b$c", "=1+1", "<b>&", r"$\frac{1}$"]
    write_images(tmp_path / "images", {"a": 12, "b": 12})
    (tmp_path / "q.yaml").write_text(
        "name: q\nfixed:\n  data: {source: image_folder, root: images}\n"
        "  model: {family: linear}\n  training: {optimizer: adam, epochs: 30}\n"
        "  search: {policy: growth, start: 2, growth: 4}\n"
        f"grid: {{data.name: {json.dumps(names)}}}\n"
    )
    live_table = flexhpc_output(tmp_path, "sweep", "q.yaml", "--profile", profile)
    status = flexhpc_output(tmp_path, "status", "runs/q")
    assert all(name in live_table and name in status for name in names)
    for command in (["results", "runs/q"], ["masks", "runs/q", "--by", "data.name"]):
        assert "'=1+1" in flexhpc_output(tmp_path, *command, "--format", "csv")
    flexhpc_output(tmp_path, "sync", "runs/q")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can create a device")
def test_a_device_is_not_replaced(small_run: Path, tmp_path: Path, cli: Cli) -> None:
    device = tmp_path / "null"
    os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    output = cli("results", small_run, "--format", "csv", "-o", device, check=2)
    assert "is not a regular file" in output.stderr
    assert stat.S_ISCHR(device.stat().st_mode)


def test_output_to_a_symbolic_link_replaces_its_target(small_run: Path, tmp_path: Path) -> None:
    (tmp_path / "link.csv").symlink_to("target.csv")
    flexhpc_output(tmp_path, "results", small_run, "--format", "csv", "-o", "link.csv")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "target.csv").read_text().startswith("point_id,")


def test_pipes_and_large_files_as_specs_are_rejected(tmp_path: Path, cli: Cli) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "large.yaml").write_text("a: [" + "1," * 4_000_000)
    assert "is not a regular file" in cli("validate", "pipe.yaml", check=2).stderr
    assert "more than the limit" in cli("validate", "large.yaml", check=2).stderr


def test_commands_work_in_an_ascii_locale(small_run: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0"}
    for command in (["results", small_run], ["report", small_run, "-o", tmp_path / "report"]):
        result = subprocess.run(
            [str(FLEXHPC), *map(str, command)], env=environment, capture_output=True, text=True,
            cwd=tmp_path, check=False,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr


CONTENTS = ["", "{", "[]", '{"launches": 3}', '{"state": "running"}', "null", "[" * 5000]
"""Invalid contents of state files."""
ARRAY = """\
{"name": "flexhpc-x", "tasks": 3, "throttle": 1, "job": null, "slurm_conf": null, "colour": "red"}
"""
"""An array.json with an unknown key."""


def test_invalid_state_files_are_ignored(small_run: Path, tmp_path: Path, profile: Path) -> None:
    """All points are still done, and the same sweep measures nothing."""
    run = Path(shutil.copytree(small_run, tmp_path / "runs" / "small"))
    shutil.copy(small_run.parent.parent / "small.yaml", tmp_path)
    array = run / "jobs" / "x" / "array-000"
    array.mkdir(parents=True)
    before = {path: path.read_bytes() for path in run.glob("points/*/*.h5")}
    for content in CONTENTS:
        for path in [run / "run.json", *run.glob("points/*/*.claim.json"), run / ".tracked.json"]:
            path.write_text(content)
        for array_content in (content, ARRAY):
            (array / "array.json").write_text(array_content)
            points = json.loads(flexhpc_output(tmp_path, "status", run, "--json"))
            assert [point["state"] for point in points] == ["done"] * 3
        if content in (CONTENTS[0], '{"launches": 3}', CONTENTS[-1]):
            flexhpc_output(tmp_path, "sweep", "small.yaml", "--profile", profile)
        assert {path: path.read_bytes() for path in run.glob("points/*/*.h5")} == before
