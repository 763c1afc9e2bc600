"""The index of a run folder: a cache that may be missing, damaged or outdated."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from flexhpc.config import load_points
from flexhpc.store import RunFolder, append_probe, create_point_file, write_estimate
from flexhpc.store.index import read_index
from flexhpc.store.status import PointStatus, StatusReader
from tests.store.test_point_file import ESTIMATE, HEADER, probe

SPEC = """\
name: indexed
fixed:
  data: {source: digits, labels: random}
  model: {family: mlp, width: 4}
  training: {steps: 100}
  search: {policy: bisection, start: 16}
grid: {seed: [0, 1, 2]}
"""


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StatusReader:
    """A reader of a run of three points that has saved the index."""
    monkeypatch.setattr("flexhpc.store.status._MIN_UNSAVED", 1)
    (tmp_path / "spec.yaml").write_text(SPEC)
    points = load_points(tmp_path / "spec.yaml")[1]
    reader = StatusReader(RunFolder(tmp_path / "run"), points)
    for point in points:
        path = reader.run.point_file(point.id)
        create_point_file(path, replace(HEADER, point_id=point.id, point=point.canonical))
        append_probe(path, replace(probe(50), metrics={"gradient_norm": float("inf")}))
        append_probe(path, replace(probe(60), machine={"host": "other"}))
    write_estimate(reader.run.point_file(points[1].id), ESTIMATE)
    reader.read()
    reader.save_index()
    return reader


def read_again(reader: StatusReader) -> list[PointStatus]:
    return StatusReader(reader.run, reader.points).read()


def test_only_changed_point_files_are_read(reader: StatusReader) -> None:
    expected, paths = reader.read(), [reader.run.point_file(point.id) for point in reader.points]
    for path in paths[:2]:
        status = path.stat()
        path.write_bytes(b"damaged".ljust(status.st_size))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    append_probe(paths[2], probe(90))
    first, second, third = read_again(reader)
    assert [first, second] == expected[:2]
    assert third.probes == 3
    os.utime(paths[0], ns=(0, 0))
    assert read_again(reader)[0].state == "failed", "the index was used for a changed file"


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: None,
        lambda content: content[: len(content) // 2],
        lambda content: content[:100] + bytes([content[100] ^ 1]) + content[101:],
        lambda _: b"",
        lambda _: b"not gzip",
        lambda _: gzip.compress(b"[1]\n"),
        lambda _: gzip.compress(b"{}\n\xff"),
        lambda content: gzip.compress(gzip.decompress(content).replace(b'"n":', b'"m":')),
    ],
)  # fmt: skip
def test_a_damaged_index_is_ignored_and_replaced(
    reader: StatusReader, damage: Callable[[bytes], bytes | None]
) -> None:
    index, expected = reader.run.index, reader.read()
    content = damage(index.read_bytes())
    index.unlink()
    if content is not None:
        index.write_bytes(content)
    again = StatusReader(reader.run, reader.points)
    assert again.read() == expected
    again.save_index()
    assert list(read_index(reader.run)) == [point.id for point in reader.points]


def test_an_index_that_cannot_be_written_is_not_an_error(reader: StatusReader) -> None:
    reader.run.index.unlink()
    reader.run.index.mkdir()
    again = StatusReader(reader.run, reader.points)
    assert again.read() == reader.read()
    again.save_index()
    assert list(reader.run.path.glob(".index*")) == [reader.run.index]
