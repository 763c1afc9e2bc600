"""Data files that are made to harm: one line, and no byte of them is taken for an address."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import pickle
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flexhpc.config import checked
from flexhpc.config.sections.data import Table
from flexhpc.data import unpacked
from flexhpc.data.cifar5m import open_cifar5m
from flexhpc.data.dataset import Part, Source, no_test
from flexhpc.data.decode import decoded
from flexhpc.data.pack import pack
from flexhpc.data.packed import MAGIC, PREFIX, open_packed
from flexhpc.data.safe_pickle import read_joblib, unpickle
from flexhpc.data.table import open_table
from flexhpc.errors import InputError, PointError
from tests.data.writers import write_cifar5m


class Calls:
    """Pickled, it is a call of whatever is named."""

    def __init__(self, what: Any, *given: Any) -> None:
        self.call = what, given

    def __reduce__(self) -> Any:
        return self.call


def built(kind: Any, *state: Any) -> Any:
    """Pickled, it is an array or a type with a state of its own."""

    class Built:
        def __reduce__(self) -> Any:
            return kind[0], kind[1:], state

    return Built()


RECONSTRUCT = np.zeros(1).__reduce__()[0]
EMPTY = (RECONSTRUCT, np.ndarray, (0,), b"b")
HOSTILE: dict[str, Any] = {
    "raw memory as objects": Calls(np.ndarray, (1,), "O", b"A" * 8),
    "raw memory": Calls(np.ndarray, (8,), "u1", b"A" * 8),
    "objects": np.array([{}, 1], dtype=object),
    "bytes as objects": built(EMPTY, 1, (1,), np.dtype("O"), False, b"A" * 8),
    "a type with fields": np.zeros(2, [("a", "i4"), ("b", "O")]),
    "a type that becomes objects": built(
        EMPTY, 1, (1,), built((np.dtype, "V8", False, True), 3, "|", None, ("a",),
                              {"a": (np.dtype("O"), 0)}, 8, 1, 63), False, b"A" * 8,
    ),
    "more than its bytes": built(EMPTY, 1, (10**9,), np.dtype("u1"), False, b"A" * 8),
    "less than its bytes": built(EMPTY, 1, (-1, 3), np.dtype("u1"), False, b"A" * 8),
    "a scalar of objects": Calls(np.float64(1).__reduce__()[0], np.dtype("O"), b"A" * 8),
    "a call": Calls(print, "the pickle was run"),
    "a bomb in another coding": Calls(__import__("codecs").encode, "x", "zip"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_no_pickle_makes_anything_but_arrays(
    what: str, protocol: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "batch"
    path.write_bytes(pickle.dumps({"data": HOSTILE[what]}, protocol=protocol))
    for read in (unpickle, read_joblib):
        with pytest.raises(Exception, match=r".") as caught:
            read(path)
        assert not isinstance(caught.value, MemoryError)
    assert "was run" not in capsys.readouterr().out


def test_plain_arrays_are_read_from_every_protocol(tmp_path: Path) -> None:
    path = tmp_path / "batch"
    held = {
        "data": np.arange(12, dtype=np.uint8).reshape(3, 4), b"labels": [1, 2],
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "scalar": np.float32(3),
        "texts": np.array(["ab", "c"]), "big endian": np.arange(3, dtype=">i4"),
        "bools": np.array([True, False]), "none": np.zeros((0, 3)),
    }  # fmt: skip
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps(held, protocol=protocol))
        found = unpickle(path)
        for key, value in held.items():
            np.testing.assert_array_equal(found[key], value)
    for array in (held["data"], held["fortran"], held["big endian"]):
        for compress in (0, 3, ("gzip", 3)):
            joblib.dump(array, path, compress=compress)
            np.testing.assert_array_equal(read_joblib(path), array)


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path, packer = tmp_path / "samples", zlib.compressobj(1)
    zeros = bytes(2**24)
    path.write_bytes(b"".join(packer.compress(zeros) for _ in range(70)) + packer.flush())
    with pytest.raises(ValueError, match="larger than a gigabyte"):
        read_joblib(path)


def objects(header: dict[str, Any]) -> None:
    header["arrays"]["inputs"][0] = "|O"


def beyond_the_end(header: dict[str, Any]) -> None:
    header["arrays"]["inputs"][1][0] = 10**12


def in_the_header(header: dict[str, Any]) -> None:
    header["arrays"]["labels"][2] = 0


def a_negative_size(header: dict[str, Any]) -> None:
    header["arrays"]["labels"][1] = [-4]


def no_arrays(header: dict[str, Any]) -> None:
    header["arrays"] = []


def no_labels(header: dict[str, Any]) -> None:
    del header["arrays"]["labels"]


def one_class(header: dict[str, Any]) -> None:
    header["classes"] = 1


def text_as_classes(header: dict[str, Any]) -> None:
    header["classes"] = "[/]"


@pytest.mark.parametrize(
    "change",
    [objects, beyond_the_end, in_the_header, a_negative_size, no_arrays, no_labels, one_class,
     text_as_classes],
)  # fmt: skip
def test_a_packed_header_of_wrong_content_is_one_line(
    change: Callable[[dict[str, Any]], None], tmp_path: Path
) -> None:
    """Whoever changes a header can make its checksum, too."""
    path = tmp_path / "some.packed"
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (20, 1, 8, 8), dtype=np.uint8)
    train = Part.of(images, np.arange(20) % 4)
    pack(Source(name="some", classes=4, train=train, test=no_test), {"source": "some"}, path)
    open_packed(path)
    content = path.read_bytes()
    _, length, _ = PREFIX.unpack(content[: PREFIX.size])
    header = json.loads(content[PREFIX.size : PREFIX.size + length])
    change(header)
    text = json.dumps(header).encode().ljust(length)
    assert len(text) == length
    digest = hashlib.sha256(text).digest()
    path.write_bytes(PREFIX.pack(MAGIC, length, digest) + text + content[PREFIX.size + length :])
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
    with pytest.raises(PointError, match=r"but for 1 cells, as '12.3.4' in row 42; correct them"):
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
    with pytest.raises(PointError, match="larger than a gigabyte"):
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
        with pytest.raises(PointError, match="is neither CSV nor Parquet") as caught:
            opened(path)
        assert "\n" not in str(caught.value)
    monkeypatch.setattr(unpacked, "MOST_BYTES", 2**20)
    path.write_bytes(PACKERS[how](b"x,y\n" + b"0,1\n" * 2**20))
    with pytest.raises(PointError, match=r"larger than a gigabyte|more than any such file"):
        opened(path)


def test_a_zip_of_several_files_is_no_table(tmp_path: Path) -> None:
    path, both = tmp_path / "t.zip", {"a.csv": b"x,y\n0,1\n", "b.csv": b"x,y\n0,1\n"}
    for content in (zipped(both), tarred(both)):
        path.write_bytes(content)
        with pytest.raises(PointError, match="holds 2 files; a table is one"):
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
    with pytest.raises(PointError, match="not a readable image"):
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
