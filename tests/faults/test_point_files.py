"""Damaged point files: one line for that point, the others unaffected."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import h5py
import pytest

from flexhpc.store.status import open_run
from tests.command import flexhpc
from tests.contents import edited


@pytest.fixture
def run(measured: Path, tmp_path: Path) -> Path:
    """A copy of a run of three finished points."""
    return Path(shutil.copytree(measured, tmp_path / "runs" / "small"))


def files(run: Path) -> list[Path]:
    folder, _, points = open_run(run)
    return [folder.point(point.id) for point in points]


def looked_at(run: Path, *more: list) -> list[dict]:
    """Return the states that the commands that read a run report; none may fail."""
    for command in (["results", run], ["status", run], *more, ["status", run, "--json"]):
        output = flexhpc(run.parent, *command)
        fails = command[0] in ("results", "status")  # if a point failed
        assert output.returncode in ((0, 1) if fails else (0,)), output.stdout + output.stderr
        assert "Traceback" not in output.stdout + output.stderr
    states: list[dict] = json.loads(output.stdout)
    return states


def test_corrupt_files_fail_their_points_alone(run: Path) -> None:
    """In every command that reads a run."""
    damaged, foreign, good = files(run)
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    shutil.copyfile(good, foreign)
    points = looked_at(
        run, ["report", run], ["results", run, "--format", "csv"],
        ["compare", run, "--by", "model"], ["masks", run], ["sync", run],
    )  # fmt: skip
    assert [point["state"] for point in points] == ["failed", "failed", "done"]
    assert f"{damaged}: is corrupt (checksum mismatch" in points[0]["message"]
    assert f"{foreign}: is corrupt (belongs to point {good.stem})" in points[1]["message"]
    assert all("\n" not in point["message"] for point in points)
    page = (run / "report" / "index.html").read_text()
    assert page.count("is corrupt") >= 2


def test_files_of_another_schema_or_changed_by_another_program_say_so(run: Path) -> None:
    newer, changed, _ = files(run)
    with edited(newer) as file:
        file.attrs["schema"] = 99
    with h5py.File(changed, "r+") as file:
        file["probes/0000"].attrs["loss"] = 0.0
    states = looked_at(run, ["report", run], ["sync", run])
    assert [point["state"] for point in states] == ["failed", "failed", "done"]
    assert "unsupported schema (99); this flexhpc reads schema 1" in states[0]["message"]
    assert "checksum mismatch" in states[1]["message"]


def test_what_is_no_plain_file_keeps_nobody_waiting(run: Path) -> None:
    first, second, _ = files(run)
    first.unlink()
    os.mkfifo(first)
    second.unlink()
    second.mkdir()
    assert [one["state"] for one in looked_at(run)] == ["failed", "failed", "done"]
