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
from flexhpc.data.dataset import Part, Source, no_test
from flexhpc.data.decode import decode_image
from flexhpc.data.packed import open_packed, write_packed
from flexhpc.data.table import open_table
from flexhpc.data.uci import open_known_table
from flexhpc.errors import InputError, PointError
from tests.data.writers import write_cifar5m


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path, packer = tmp_path / "samples", zlib.compressobj(1)
    zeros = bytes(2**24)
    path.write_bytes(b"".join(packer.compress(zeros) for _ in range(70)) + packer.flush())
    tracemalloc.start()
    with pytest.raises(PointError, match="cannot be read as scikit-learn's cache"):
        open_known_table(KnownTable(source="covtype", root=str(path)))
    assert tracemalloc.get_traced_memory()[1] < 3 * 2**30
    tracemalloc.stop()


def pickled(archive: dict[str, Any]) -> None:
    archive["labels.npy"] = npy(np.array([{}, 1], dtype=object))


def fortran(archive: dict[str, Any]) -> None:
    archive["inputs.npy"] = npy(np.asfortranarray(np.zeros((20, 4), np.uint8)))


def beyond_the_end(archive: dict[str, Any]) -> None:
    archive["inputs.npy"] = archive["inputs.npy"].replace(b"(20, 1, 8, 8)", b"(10**9, 8, 8)")
    archive["inputs.npy"] = archive["inputs.npy"].replace(b"10**9", b"99999")


def a_negative_size(archive: dict[str, Any]) -> None:
    archive["inputs.npy"] = archive["inputs.npy"].replace(b"(20, 1, ", b"(20, -1,")


def no_labels(archive: dict[str, Any]) -> None:
    del archive["labels.npy"]


def one_class(archive: dict[str, Any]) -> None:
    archive["header.json"] = archive["header.json"].replace(b'"classes": 4', b'"classes": 1')


def text_as_classes(archive: dict[str, Any]) -> None:
    archive["header.json"] = archive["header.json"].replace(b'"classes": 4', b'"classes": "[/]"')


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize(
    "change",
    [pickled, fortran, beyond_the_end, a_negative_size, no_labels, one_class, text_as_classes,
     None],
)  # fmt: skip
def test_a_packed_file_of_wrong_content_is_one_line(
    change: Callable[[dict[str, Any]], None] | None, tmp_path: Path
) -> None:
    """Anyone who changes a file can make its checksums, or compress a bomb."""
    path = tmp_path / "some.packed"
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (20, 1, 8, 8), dtype=np.uint8)
    train = Part.of(images, np.arange(20) % 4)
    write_packed(
        Source(name="some", classes=4, train=train, test=no_test), {"source": "some"}, path
    )
    open_packed(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    before = dict(members)
    if change is not None:
        change(members)
        assert members != before
    kind = zipfile.ZIP_DEFLATED if change is None else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(PointError) as caught:
        open_packed(path)
    assert "\n" not in str(caught.value)


def table(folder: Path, text: str, name: str = "t.csv") -> Path:
    path = folder / name
    content = text.encode()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


def opened(path: Path, **keys: Any) -> Any:
    return open_table(Table(source="table", path=str(path), target="y", **keys))


def test_numbers_but_for_a_few_cells_are_told(tmp_path: Path) -> None:
    rows = [f"{i / 7},{i % 2}" for i in range(100)]
    good = opened(table(tmp_path, "\n".join(["x,y", *rows])))
    assert good.train.shape == (1,)
    rows[41] = "12.3.4,1"
    path = table(tmp_path, "\n".join(["x,y", *rows]))
    with pytest.raises(PointError, match=r"except in 1 cells .'12.3.4' in row 42.; correct them"):
        opened(path)
    assert opened(path, categorical=["x"]).train.shape == (100,), "as it was asked for"


def test_a_table_may_be_packed_by_gzip_but_is_no_bomb(tmp_path: Path) -> None:
    text = "\n".join(["x,y", *(f"{i / 7},{i % 2}" for i in range(100))])
    plain, packed = opened(table(tmp_path, text)), opened(table(tmp_path, text, "t.csv.gz"))
    np.testing.assert_array_equal(plain.train.gather(), packed.train.gather())
    bomb = tmp_path / "bomb.csv.gz"
    with gzip.open(bomb, "wb", 1) as file:
        for _ in range(70):
            file.write(b"0,1\n" * 2**22)
    with pytest.raises(PointError, match="larger than 1,073,741,824 bytes"):
        opened(bomb)


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "bz2": bz2.compress, "xz": lzma.compress, "zip": lambda content: zipped({"t.csv": content}),
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
def test_a_table_may_be_packed_in_other_ways_within_the_same_bound(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "\n".join(["x,y", *(f"{i / 7},{i % 2}" for i in range(100))])
    plain, path = opened(table(tmp_path, text)), tmp_path / f"t.csv.{how}"
    good = PACKERS[how](text.encode())
    path.write_bytes(good)
    np.testing.assert_array_equal(plain.train.gather(), opened(path).train.gather())
    by_its_name = lzma.compress(text.encode(), format=lzma.FORMAT_ALONE)
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
        decode_image(("a.png", path), None, None)


@pytest.mark.parametrize("key", ["checkpoint_path", "pretrained"])
def test_no_weights_are_loaded(key: str, tmp_path: Path) -> None:
    spec = tmp_path / "q.yaml"
    spec.write_text(
        "name: q\nfixed:\n  data: {source: digits, labels: random}\n"
        f"  model: {{family: 'timm:vit_tiny_patch16_224', kwargs: {{{key}: /etc/passwd}}}}\n"
        "  training: {optimizer: adam}\n  search: {policy: bisection}\n"
    )
    with pytest.raises(InputError, match=f"model.kwargs.{key}: loads pretrained weights"):
        checked(spec)
