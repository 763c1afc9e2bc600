"""Malformed and malicious files: each is one error message, and limits of memory hold."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import re
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flexhpc.config.sections.data import KnownTable, Table
from flexhpc.data import raw_files
from flexhpc.data.classes import encode_labels
from flexhpc.data.image_sets import open_cifar5m
from flexhpc.data.images import decode_image
from flexhpc.data.table import open_table
from flexhpc.data.uci import open_known_table
from flexhpc.errors import PointError
from tests.conftest import Cli
from tests.data.test_formats import load_section
from tests.data.test_uci import CREDIT_HEADER, covtype_rows, write_covtype_cache
from tests.data.writers import one_line_error, tar_of, write_cifar5m, write_images, write_text

LARGE_NUMBER = "9" * 400


def error_message(folder: Path, data: str) -> str:
    """Return the error message of a data section, in which {} is replaced by the folder."""
    with pytest.raises(PointError) as caught:
        load_section(folder, data.replace("{}", str(folder)))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("digits", [LARGE_NUMBER, f"-{LARGE_NUMBER}", f"{LARGE_NUMBER}.5", "1e400"])
def test_numbers_too_large_for_float64_are_rejected(digits: str, tmp_path: Path) -> None:
    rows = "".join(f"{i},{i % 2}\n" for i in range(10))
    tables = {
        "table": f"x,y\n{rows}{digits},1\n",
        "adult": ",".join([digits, *["1"] * 13, "<=50K"]) + "\n",
        "credit": f"{CREDIT_HEADER}{','.join(['1', digits, *['1'] * 23])}\n",
    }
    for source, text in tables.items():
        path = tmp_path / f"{source}.csv"
        path.write_text(text)
        key = "target: y, path" if source == "table" else "root"
        problem = error_message(tmp_path, f"source: {source}, {key}: '{path}'")
        assert problem.startswith(f"{path}: column ")
        assert "numbers that are too large for float32; correct it" in problem


def test_labels_too_large_for_float64_are_rejected() -> None:
    with pytest.raises(PointError, match="a label is too large for float64"):
        encode_labels("x", [1, int(LARGE_NUMBER)])


PIPES = {
    "table": ("pipe", "source: table, path: '{}/pipe', target: y"),
    "packed": ("pipe", "source: image_folder, root: '{}/pipe'"),
    "image_folder": ("images/a/9.png", "source: image_folder, root: '{}/images'"),
    "labels in .npy": ("y.npy", "source: arrays, path: '{}/x.npy', target: y.npy"),
    "image_table": ("rows/a.parquet", "source: image_table, path: '{}/rows'"),
    "webdataset": ("tars/a.tar", "source: webdataset, path: '{}/tars'"),
    "hugging_face": ("hf/state.json", "source: hugging_face, path: '{}/hf'"),
    "cifar5m": ("parts/part1.npz", "source: cifar5m, root: '{}/parts'"),
    "targets of covtype": ("covertype/targets_py3", "source: covtype, root: '{}'"),
}
"""Path of the pipe, and a data section that reads it."""


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("pipe", "data"), PIPES.values(), ids=PIPES)
def test_named_pipe_is_rejected(pipe: str, data: str, tmp_path: Path) -> None:
    write_images(tmp_path / "images", {"a": 2, "b": 2})
    write_cifar5m(tmp_path / "parts", {0: 2})
    write_covtype_cache(tmp_path, covtype_rows())
    np.save(tmp_path / "x.npy", np.zeros((4, 3)))
    path = tmp_path / pipe
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    problem = error_message(tmp_path, data)
    assert pipe.partition("/")[0] in problem
    assert re.search("not a regular file|file not found|neither a .tar file|not a folder", problem)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("command", [("data", "check"), ("unpack",)], ids=" ".join)
def test_named_pipe_is_rejected_by_commands(
    command: tuple[str, ...], tmp_path: Path, cli: Cli
) -> None:
    os.mkfifo(tmp_path / "pipe")
    done = cli(*command, "pipe", check=None)
    assert done.returncode in (1, 2)
    assert "is not a regular file; replace it with a regular file" in done.stderr


def test_too_many_columns_or_cells_are_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ",".join(f"c{i}" for i in range(100_000))
    text = f'"y",{names}\n' + "0" + ",a" * 100_000 + "\n"
    (tmp_path / "t.csv").write_text(text)
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(text.encode()))
    for name in ("t.csv", "t.csv.gz"):
        assert error_message(tmp_path, f"source: table, path: '{{}}/{name}', target: y") == (
            f"{tmp_path}/{name}: has 100,001 columns, but the maximum is 32,768; remove columns, "
            "or save the table as .npy (data.source: arrays)"
        )
    (tmp_path / "adult.data").write_text(text)
    assert "has 100,001 columns" in error_message(tmp_path, "source: adult, root: '{}'")
    monkeypatch.setattr("flexhpc.data.table._MAX_COLUMNS", 2)
    pd.DataFrame({"a": [1, 2], "b": [1, 2], "y": [0, 1]}).to_parquet(tmp_path / "t.parquet")
    parquet = "source: table, path: '{}/t.parquet', target: y"
    assert "t.parquet: has 3 columns, but the maximum is 2" in error_message(tmp_path, parquet)
    monkeypatch.undo()
    monkeypatch.setattr("flexhpc.data.table._MAX_CELLS", 5)
    assert "too many cells: 2 rows x 3 columns" in error_message(tmp_path, parquet)


@pytest.mark.parametrize("cell", ["1" * 5_000_000, "1," * 3_000_000])
@pytest.mark.parametrize(
    "source", ["table, path: '{}/covtype.csv', target: y", "covtype, root: '{}'"]
)
def test_first_row_without_newline_is_rejected(cell: str, source: str, tmp_path: Path) -> None:
    (tmp_path / "covtype.csv").write_text(cell)
    problem = error_message(tmp_path, f"source: {source}")
    assert re.search("first row is longer|field larger", problem)


def test_compressed_covtype_is_limited_in_bytes_and_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = b"0," * 54 + b"0\n"
    path, data = tmp_path / "covtype.data.gz", "source: covtype, root: '{}'"
    monkeypatch.setattr("flexhpc.data.uci._MAX_BYTES", 2**20)
    for content in (bytes(2**20 + 1), row * 10_000):
        path.write_bytes(gzip.compress(content))
        problem = error_message(tmp_path, data)
        assert "larger than 1,048,576 bytes after decompression" in problem
    monkeypatch.setattr("flexhpc.data.uci._MAX_ROWS", 100)
    path.write_bytes(gzip.compress(row * 101))
    assert "has more than 100 rows" in error_message(tmp_path, data)


def test_zlib_bomb_is_not_decompressed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flexhpc.data.uci.MAX_BYTES", 2**22)
    path = tmp_path / "samples"
    path.write_bytes(zlib.compress(bytes(2**26)))
    tracemalloc.start()
    with pytest.raises(PointError, match="cannot be read as scikit-learn's cache"):
        open_known_table(KnownTable(source="covtype", root=str(path)))
    assert tracemalloc.get_traced_memory()[1] < 3 * 2**22
    tracemalloc.stop()


ROWS = "\n".join(["x,y", *(f"{i / 7},{i % 2}" for i in range(100))])


def open_csv(path: Path, **keys: Any) -> Any:
    return open_table(Table(source="table", path=str(path), target="y", **keys))


def test_numeric_column_with_few_non_numbers_is_rejected(tmp_path: Path) -> None:
    assert open_csv(write_text(tmp_path / "valid.csv", ROWS)).train.shape == (1,)
    rows = ROWS.splitlines()
    rows[42] = "12.3.4,1"
    path = write_text(tmp_path / "t.csv", "\n".join(rows))
    expected = r"except for 1 cells .the first is '12.3.4' in row 42.; correct them"
    with pytest.raises(PointError, match=expected):
        open_csv(path)
    assert open_csv(path, categorical=["x"]).train.shape == (100,), "if requested"


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress,
    "zip": lambda content: zip_of({"t.csv": content}),
    "tar.xz": lambda content: lzma.compress(tar_of({"t.csv": content})),
    "tar": lambda content: tar_of({"t.csv": content}),
}  # fmt: skip


def zip_of(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


@pytest.mark.parametrize("suffix", PACKERS)
def test_compressed_table_is_read_unless_it_is_damaged_or_too_large(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, path = open_csv(write_text(tmp_path / "t.csv", ROWS)), tmp_path / f"t.csv.{suffix}"
    valid = PACKERS[suffix](ROWS.encode())
    path.write_bytes(valid)
    np.testing.assert_array_equal(plain.train.gather(), open_csv(path).train.gather())
    other_format = lzma.compress(ROWS.encode(), format=lzma.FORMAT_ALONE)
    damaged = {valid[:-20], valid[:30], valid[:40] + b"\0\0" + valid[42:], other_format}
    if suffix == "tar":  # only its headers have checksums
        damaged = {valid[:600], valid[:100] + b"\0\0" + valid[102:], other_format}
    for content in damaged:
        path.write_bytes(content)
        with one_line_error("cannot be read as a CSV or Parquet table"):
            open_csv(path)
    monkeypatch.setattr(raw_files, "MAX_BYTES", 2**20)
    path.write_bytes(PACKERS[suffix](b"x,y\n" + b"0,1\n" * 2**20))
    with pytest.raises(PointError, match="larger than 1,048,576 bytes"):
        open_csv(path)


def test_archive_of_several_files_is_rejected(tmp_path: Path) -> None:
    path, both = tmp_path / "t.zip", {"a.csv": b"x,y\n0,1\n", "b.csv": b"x,y\n0,1\n"}
    for content in (zip_of(both), tar_of(both)):
        path.write_bytes(content)
        with pytest.raises(PointError, match="contains 2 files instead of one"):
            open_csv(path)


def test_gap_of_millions_of_parts_takes_no_memory(tmp_path: Path) -> None:
    write_cifar5m(tmp_path, {0: 2})
    (tmp_path / "part_99999999.npz").touch()
    tracemalloc.start()
    with pytest.raises(PointError, match="part 1 of CIFAR-5m is missing"):
        open_cifar5m(str(tmp_path))
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_postscript_named_png_is_rejected(tmp_path: Path) -> None:
    """PIL would run Ghostscript on this file."""
    path = tmp_path / "a.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(PointError, match="cannot be read as an image"):
        decode_image(("a.png", path), None, None)


def test_excel_sheet_of_two_distant_cells_is_rejected(tmp_path: Path) -> None:
    """The reader would allocate all cells between them and abort the process."""
    path = tmp_path / "credit.xlsx"
    cells = b'<c r="A1"><v>1</v></c><c r="XFD1048576"><v>1</v></c>'
    path.write_bytes(zip_of({"xl/worksheets/sheet1.xml": cells}))
    problem = error_message(tmp_path, "source: credit, root: '{}/credit.xlsx'")
    assert "too many cells: 1,048,576 rows x 16,384 columns" in problem


def test_array_larger_than_memory_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Memory:
        available = 1_000

    np.savez_compressed(tmp_path / "t.npz", x=np.zeros((400, 3)), y=np.arange(400) % 2)
    monkeypatch.setattr(raw_files.psutil, "virtual_memory", Memory)
    problem = error_message(tmp_path, "source: arrays, path: '{}/t.npz'")
    expected = "t.npz: array x (0.0 GB) is larger than the available memory (0.0 GB)"
    assert f"{expected}; save it as .npy" in problem
