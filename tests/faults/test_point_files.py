"""Damaged point files: one line for that point, the others unaffected."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from flexhpc.errors import PointError
from flexhpc.store import read
from flexhpc.store.seal import SIZE
from flexhpc.store.status import open_run
from tests.command import flexhpc
from tests.conftest import FULL
from tests.contents import edited

FLIPS = 2_000 if FULL else 150


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


def test_a_file_of_another_schema_says_so(run: Path) -> None:
    with edited(files(run)[0]) as file:
        file.attrs["schema"] = 99
    bad, *_ = looked_at(run)
    assert bad["state"] == "failed"
    assert "unsupported schema (99); this flexhpc reads schema 1" in bad["message"]


def test_a_file_changed_by_another_program_says_so(run: Path) -> None:
    path = files(run)[0]
    with h5py.File(path, "r+") as file:
        file["probes/0000"].attrs["loss"] = 0.0
    bad, *_ = looked_at(run, ["report", run], ["sync", run])
    assert bad["state"] == "failed"
    assert "checksum mismatch" in bad["message"]


def test_every_flipped_bit_is_seen_or_harmless(run: Path, tmp_path: Path) -> None:
    """Only the padding of the first 512 bytes, which holds zeros, is not part of the checksum."""
    path, copy = files(run)[1], tmp_path / "flipped.h5"
    content, right = path.read_bytes(), read(path)
    rng = np.random.default_rng()
    places = [*range(0, len(content), 4096), *rng.integers(0, len(content), FLIPS)]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        copy.write_bytes(damaged)
        try:
            found = read(copy)
        except PointError:
            continue
        assert 58 <= place < SIZE, f"a flip at {place} went unseen"
        assert found.estimate == right.estimate


def test_every_cut_is_seen(run: Path, tmp_path: Path) -> None:
    path, copy = files(run)[1], tmp_path / "cut.h5"
    content = path.read_bytes()
    for length in range(0, len(content), 512):
        copy.write_bytes(content[:length])
        with pytest.raises(PointError, match="is corrupt"):
            read(copy)


def test_what_is_no_plain_file_keeps_nobody_waiting(run: Path) -> None:
    first, second, _ = files(run)
    first.unlink()
    os.mkfifo(first)
    second.unlink()
    second.mkdir()
    assert [one["state"] for one in looked_at(run)] == ["failed", "failed", "done"]
