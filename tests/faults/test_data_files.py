"""Data files that are made to harm: one line, and no byte of them is taken for an address."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flexhpc.config import checked
from flexhpc.config.sections.data import KnownTable, Table
from flexhpc.data import raw_files
from flexhpc.data.cifar5m import open_cifar5m
from flexhpc.data.decode import decoded
from flexhpc.data.table import open_table
from flexhpc.data.uci import open_known_table
from flexhpc.errors import InputError, PointError
from tests.data.writers import write_cifar5m, written


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flexhpc.data.uci.MOST_BYTES", 2**22)
    path = tmp_path / "samples"
    path.write_bytes(zlib.compress(bytes(2**26)))
    tracemalloc.start()
    with pytest.raises(PointError, match="cannot be read as scikit-learn's cache"):
        open_known_table(KnownTable(source="covtype", root=str(path)))
    assert tracemalloc.get_traced_memory()[1] < 3 * 2**22
    tracemalloc.stop()


ROWS = "\n".join(["x,y", *(f"{i / 7},{i % 2}" for i in range(100))])


def opened(path: Path, **keys: Any) -> Any:
    return open_table(Table(source="table", path=str(path), target="y", **keys))


def test_numbers_but_for_a_few_cells_are_told(tmp_path: Path) -> None:
    assert opened(written(tmp_path / "good.csv", ROWS)).train.shape == (1,)
    rows = ROWS.splitlines()
    rows[42] = "12.3.4,1"
    path = written(tmp_path / "t.csv", "\n".join(rows))
    with pytest.raises(PointError, match=r"except in 1 cells .'12.3.4' in row 42.; correct them"):
        opened(path)
    assert opened(path, categorical=["x"]).train.shape == (100,), "as it was asked for"


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress,
    "zip": lambda content: zipped({"t.csv": content}),
    "tar.xz": lambda content: lzma.compress(tarred({"t.csv": content})),
    "tar": lambda content: tarred({"t.csv": content}),
}  # fmt: skip


def tarred(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


@pytest.mark.parametrize("how", PACKERS)
def test_a_table_may_be_packed_but_is_no_bomb(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, path = opened(written(tmp_path / "t.csv", ROWS)), tmp_path / f"t.csv.{how}"
    good = PACKERS[how](ROWS.encode())
    path.write_bytes(good)
    np.testing.assert_array_equal(plain.train.gather(), opened(path).train.gather())
    by_its_name = lzma.compress(ROWS.encode(), format=lzma.FORMAT_ALONE)
    bad = {good[:-20], good[:30], good[:40] + b"\0\0" + good[42:], by_its_name}
    if how == "tar":  # which has no checksum but of its heads
        bad = {good[:600], good[:100] + b"\0\0" + good[102:], by_its_name}
    for content in bad:
        path.write_bytes(content)
        with pytest.raises(PointError, match="cannot be read as a CSV or Parquet table") as caught:
            opened(path)
        assert "\n" not in str(caught.value)
    monkeypatch.setattr(raw_files, "MOST_BYTES", 2**20)
    path.write_bytes(PACKERS[how](b"x,y\n" + b"0,1\n" * 2**20))
    with pytest.raises(PointError, match="larger than 1,048,576 bytes"):
        opened(path)


def test_a_zip_of_several_files_is_no_table(tmp_path: Path) -> None:
    path, both = tmp_path / "t.zip", {"a.csv": b"x,y\n0,1\n", "b.csv": b"x,y\n0,1\n"}
    for content in (zipped(both), tarred(both)):
        path.write_bytes(content)
        with pytest.raises(PointError, match="contains 2 files instead of one"):
            opened(path)


def test_a_parquet_file_may_not_unpack_to_billions_of_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.parquet"
    columns = {"x": np.zeros(600, np.int8), "y": np.arange(600) % 2}
    pq.write_table(pa.table(columns), path)
    assert opened(path).train.shape == (1,)
    monkeypatch.setattr("flexhpc.data.table._MOST_CELLS", 1000)
    with pytest.raises(PointError, match="600 rows of 2 columns are too many"):
        opened(path)


def test_a_gap_of_millions_of_parts_takes_no_memory(tmp_path: Path) -> None:
    write_cifar5m(tmp_path, {0: 2})
    (tmp_path / "part_99999999.npz").touch()
    tracemalloc.start()
    with pytest.raises(PointError, match="part 1 of CIFAR-5m is missing"):
        open_cifar5m("cifar5m", str(tmp_path))
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_an_image_is_what_it_may_be_whatever_it_is_called(tmp_path: Path) -> None:
    """PIL would hand this one to Ghostscript."""
    path = tmp_path / "a.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(PointError, match="cannot be read as an image"):
        decoded(("a.png", path), None, None)


@pytest.mark.parametrize("key", ["checkpoint_path", "pretrained"])
def test_no_weights_are_loaded(key: str, tmp_path: Path) -> None:
    spec = tmp_path / "q.yaml"
    spec.write_text(
        "name: q\nfixed:\n  data: {source: digits, labels: random}\n"
        f"  model: {{family: 'timm:vit_tiny_patch16_224', kwargs: {{{key}: /etc/passwd}}}}\n"
        "  training: {optimizer: adam}\n  search: {policy: bisection}\n"
    )
    with pytest.raises(InputError, match=f"model.kwargs.{key}: loads trained weights"):
        checked(spec)
