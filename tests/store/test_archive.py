"""A run in one file: what is in it, and what is refused."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest

from flexhpc.errors import InputError
from flexhpc.store import RunFolder, take
from flexhpc.store.archive import pack, unpack
from tests.conftest import Cli
from tests.sweeps import contents, probes_in


@pytest.fixture
def packed(measured: Path, tmp_path: Path) -> Path:
    archive = tmp_path / "small.zip"
    assert pack(RunFolder(measured), archive) >= 5
    return archive


def test_unpacking_restores_the_run(measured: Path, packed: Path, tmp_path: Path, cli: Cli) -> None:
    said = cli("unpack", packed).stdout
    again = tmp_path / "runs" / "small"
    assert said.strip() == str(again)
    assert contents(again) == contents(measured)
    assert cli("results", again).stdout == cli("results", measured).stdout
    assert not list(again.glob("*.db"))


def test_a_run_at_work_is_not_packed(measured: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    shutil.copytree(measured, run.path)
    assert take(run.claim("ab" * 8), run.lock, launch="x")
    with pytest.raises(InputError, match="measures a point"):
        pack(run, tmp_path / "x.zip")
    assert not (tmp_path / "x.zip").exists()


def test_what_is_there_stays(measured: Path, packed: Path, tmp_path: Path, cli: Cli) -> None:
    cli("unpack", packed)
    assert "already exists" in cli("unpack", packed, check=2).stderr
    assert "not a regular file" in cli("pack", measured, "-o", "/dev/null", check=2).stderr
    assert "No such file" in cli("unpack", tmp_path / "none.zip", check=2).stderr
    assert "is inside the run" in cli("pack", measured, "-o", measured / "x.zip", check=2).stderr


@pytest.mark.parametrize("kind", ["cut", "bit", "text", "two folders", "upwards", "nothing"])
def test_another_file_is_refused(kind: str, packed: Path, tmp_path: Path, cli: Cli) -> None:
    content = bytearray(packed.read_bytes())
    if kind == "cut":
        packed.write_bytes(content[: len(content) // 2])
    elif kind == "bit":
        content[len(content) // 3] ^= 4
        packed.write_bytes(content)
    elif kind == "text":
        packed.write_text("no zip")
    else:
        with zipfile.ZipFile(packed, "a" if kind != "nothing" else "w") as file:
            if kind != "nothing":
                file.writestr("../x" if kind == "upwards" else "other/x", "x")
    said = cli("unpack", packed, check=2).stderr
    assert "packed run" in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "runs" / "small").exists()
    assert not list(tmp_path.rglob("*.part"))


def test_an_unfinished_run_continues(
    measured: Path, untracked: Path, tmp_path: Path, cli: Cli
) -> None:
    run = tmp_path / "runs" / "small"
    shutil.copytree(measured, run)
    victim = next(run.glob("points/*/*.h5"))
    victim.unlink()
    kept = probes_in(run)
    archive = tmp_path / "part.zip"
    pack(RunFolder(run), archive)
    shutil.rmtree(run)
    unpack(archive, tmp_path / "runs")
    cli("sweep", measured.parent.parent / "small.yaml", "--profile", untracked)
    assert contents(run) == contents(measured)
    assert kept <= probes_in(run), "a finished probe was repeated"
