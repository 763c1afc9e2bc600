"""Packed runs: their content, and rejected archives."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest

from flexhpc.errors import InputError
from flexhpc.store import RunFolder, acquire_claim
from flexhpc.store.archive import pack_run, unpack_run
from tests.conftest import Cli
from tests.sweeps import probes_in, results_by_point


@pytest.fixture
def packed(small_run: Path, tmp_path: Path) -> Path:
    archive = tmp_path / "small.zip"
    assert pack_run(RunFolder(small_run), archive) >= 5
    return archive


def test_unpack_restores_the_run(small_run: Path, packed: Path, tmp_path: Path, cli: Cli) -> None:
    output = cli("unpack", packed).stdout
    run = tmp_path / "runs" / "small"
    assert output.strip() == str(run)
    assert results_by_point(run) == results_by_point(small_run)
    assert cli("results", run).stdout == cli("results", small_run).stdout
    assert not list(run.glob("*.db"))


def test_pack_rejects_a_run_with_a_running_worker(small_run: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    shutil.copytree(small_run, run.path)
    assert acquire_claim(run.claim_file("ab" * 8), run.lock, launch="x")
    with pytest.raises(InputError, match="is measuring a point"):
        pack_run(run, tmp_path / "x.zip")
    assert not (tmp_path / "x.zip").exists()


def test_pack_and_unpack_reject_invalid_paths(
    small_run: Path, packed: Path, tmp_path: Path, cli: Cli
) -> None:
    cli("unpack", packed)
    assert "already exists" in cli("unpack", packed, check=2).stderr
    assert "not a regular file" in cli("pack", small_run, "-o", "/dev/null", check=2).stderr
    assert "No such file" in cli("unpack", tmp_path / "none.zip", check=2).stderr
    assert "is inside the run" in cli("pack", small_run, "-o", small_run / "x.zip", check=2).stderr


@pytest.mark.parametrize(
    "damage", ["truncated", "flipped bit", "text", "two folders", "parent folder", "empty zip"]
)
def test_unpack_rejects_other_files(damage: str, packed: Path, tmp_path: Path, cli: Cli) -> None:
    content = bytearray(packed.read_bytes())
    if damage == "truncated":
        packed.write_bytes(content[: len(content) // 2])
    elif damage == "flipped bit":
        content[len(content) // 3] ^= 4
        packed.write_bytes(content)
    elif damage == "text":
        packed.write_text("no zip")
    else:
        with zipfile.ZipFile(packed, "w" if damage == "empty zip" else "a") as file:
            if damage != "empty zip":
                file.writestr("../x" if damage == "parent folder" else "other/x", "x")
    error = cli("unpack", packed, check=2).stderr
    assert "packed run" in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "runs" / "small").exists()
    assert not list(tmp_path.rglob("*.part"))


def test_an_unfinished_run_can_be_resumed_after_unpacking(
    small_run: Path, profile: Path, tmp_path: Path, cli: Cli
) -> None:
    run = tmp_path / "runs" / "small"
    shutil.copytree(small_run, run)
    next(run.glob("points/*/*.h5")).unlink()
    finished = probes_in(run)
    archive = tmp_path / "part.zip"
    pack_run(RunFolder(run), archive)
    shutil.rmtree(run)
    unpack_run(archive, tmp_path / "runs")
    cli("sweep", small_run.parent.parent / "small.yaml", "--profile", profile)
    assert results_by_point(run) == results_by_point(small_run)
    assert finished <= probes_in(run), "a finished probe was repeated"
