"""Damaged point files: one error for the point, no effect on other points."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from flexhpc.store.status import open_run
from tests.command import run_flexhpc
from tests.point_files import edited


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> Path:
    """A copy of a run of three finished points."""
    return Path(shutil.copytree(small_run, tmp_path / "runs" / "small"))


def files(run: Path) -> list[Path]:
    folder, _, points = open_run(run)
    return [folder.point_file(point.id) for point in points]


def statuses(run: Path, *commands: list[Any]) -> list[dict[str, Any]]:
    """Return the output of `flexhpc status`; check that commands that read a run do not fail."""
    for command in (["results", run], ["status", run], *commands, ["status", run, "--json"]):
        output = run_flexhpc(run.parent, *command)
        allowed = (0, 1) if command[0] in ("results", "status") else (0,)  # 1: a point failed
        assert output.returncode in allowed, output.stdout + output.stderr
        assert "Traceback" not in output.stdout + output.stderr
    return json.loads(output.stdout)


def test_corrupt_files_affect_only_their_points(run: Path) -> None:
    damaged, foreign, valid = files(run)
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    shutil.copyfile(valid, foreign)
    points = statuses(
        run, ["report", run], ["results", run, "--format", "csv"],
        ["compare", run, "--by", "model"], ["masks", run], ["sync", run],
    )  # fmt: skip
    assert [point["state"] for point in points] == ["failed", "failed", "done"]
    assert f"{damaged}: is corrupt (checksum mismatch" in points[0]["message"]
    assert f"{foreign}: is corrupt (belongs to point {valid.stem})" in points[1]["message"]
    assert all("\n" not in point["message"] for point in points)
    page = (run / "report" / "index.html").read_text()
    assert page.count("is corrupt") >= 2


def test_a_newer_schema_is_reported(run: Path) -> None:
    with edited(files(run)[0]) as file:
        file.attrs["schema"] = 99
    points = statuses(run, ["report", run], ["sync", run])
    assert [point["state"] for point in points] == ["failed", "done", "done"]
    reason = "unsupported schema (99), because this flexhpc reads only schema 1;"
    assert reason in points[0]["message"]


def test_pipes_and_folders_as_point_files_do_not_block(run: Path) -> None:
    pipe, folder, _ = files(run)
    pipe.unlink()
    os.mkfifo(pipe)
    folder.unlink()
    folder.mkdir()
    assert [point["state"] for point in statuses(run)] == ["failed", "failed", "done"]
