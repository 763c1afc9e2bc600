"""Malformed files: each ends in one error message, before the whole file is read."""

from __future__ import annotations

import gzip
import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flexhpc.config import checked
from flexhpc.data import load_samples, raw_files
from flexhpc.data.classes import encode_labels
from flexhpc.errors import PointError
from tests.conftest import Cli
from tests.data.test_uci import covtype_rows, write_covtype_cache
from tests.data.writers import write_cifar5m, write_images

LARGE = "9" * 400


def message(folder: Path, data: str) -> str:
    """Return the error of a data section; {} stands for the folder."""
    spec = folder / "spec.yaml"
    section = data.replace("{}", str(folder))
    spec.write_text(f"name: x\nfixed:\n  data: {{{section}}}\n  model: {{family: linear}}\n")
    (point,) = checked(spec)[1]
    with pytest.raises(PointError) as caught:
        load_samples(point.data, point.seed)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def csv_rows(x: str, y: str = "1") -> str:
    return "x,y\n" + "".join(f"{i},{i % 2}\n" for i in range(10)) + f"{x},{y}\n"


@pytest.mark.parametrize("digits", [LARGE, f"-{LARGE}", f"{LARGE}.5", "1e400"])
def test_a_number_too_large_for_float64(digits: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(csv_rows(digits))
    assert "column x has infinite or too large numbers; correct it" in message(
        tmp_path, "source: table, path: '{}/t.csv', target: y"
    )


@pytest.mark.parametrize("source", ["adult", "credit"])
def test_a_number_too_large_in_known_tables(source: str, tmp_path: Path) -> None:
    header = ",".join(["ID", *(f"X{i}" for i in range(1, 24)), "Y"])
    text = {
        "adult": ",".join([LARGE, *["1"] * 13, "<=50K"]),
        "credit": f"{header}\n{','.join(['1', LARGE, *['1'] * 23])}",
    }[source]
    path = tmp_path / "t.csv"
    path.write_text(f"{text}\n")
    problem = message(tmp_path, f"source: {source}, root: '{{}}/t.csv'")
    assert problem.startswith(f"{path}: column ")
    assert "too large numbers" in problem


def test_a_label_too_large_for_float64() -> None:
    with pytest.raises(PointError, match="labels have a number too large for float64"):
        encode_labels("x", [1, int(LARGE)])


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
"""The pipe, and a section that reads it."""


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("pipe", "data"), PIPES.values(), ids=PIPES)
def test_a_named_pipe_is_refused(pipe: str, data: str, tmp_path: Path) -> None:
    write_images(tmp_path / "images", {"a": 2, "b": 2})
    write_cifar5m(tmp_path / "parts", {0: 2})
    write_covtype_cache(tmp_path, covtype_rows())
    np.save(tmp_path / "x.npy", np.zeros((4, 3)))
    path = tmp_path / pipe
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    problem = message(tmp_path, data)
    assert pipe.partition("/")[0] in problem
    assert re.search(
        "not a regular file|file not found|not a file|not a .tar file|not a folder", problem
    )


@pytest.mark.timeout(60)
@pytest.mark.parametrize("command", [("data", "check"), ("unpack",)])
def test_a_named_pipe_is_refused_by_commands(
    command: tuple[str, ...], tmp_path: Path, cli: Cli
) -> None:
    os.mkfifo(tmp_path / "pipe")
    done = cli(*command, tmp_path / "pipe", check=None)
    assert done.returncode in (1, 2)
    assert "is not a regular file; replace it with one" in done.stderr


def test_too_many_columns_are_refused_by_the_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ",".join(f"c{i}" for i in range(100_000))
    text = f'"y",{names}\n' + "0" + ",a" * 100_000 + "\n"
    (tmp_path / "t.csv").write_text(text)
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(text.encode()))
    for name in ("t.csv", "t.csv.gz"):
        assert message(tmp_path, f"source: table, path: '{{}}/{name}', target: y") == (
            f"{tmp_path}/{name}: has 100,001 columns, at most 32,768 are supported; keep fewer, or "
            "save it as .npy (data.source: arrays)"
        )
    (tmp_path / "adult.data").write_text(text)
    assert "has 100,001 columns" in message(tmp_path, "source: adult, root: '{}'")
    monkeypatch.setattr("flexhpc.data.table._MOST_COLUMNS", 2)
    pd.DataFrame({"a": [1, 2], "b": [1, 2], "y": [0, 1]}).to_parquet(tmp_path / "t.parquet")
    assert "t.parquet: has 3 columns, at most 2 are supported" in message(
        tmp_path, "source: table, path: '{}/t.parquet', target: y"
    )


@pytest.mark.parametrize("cell", ["1" * 5_000_000, "1," * 3_000_000])
@pytest.mark.parametrize(
    "source", ["table, path: '{}/covtype.csv', target: y", "covtype, root: '{}'"]
)
def test_a_first_row_without_end_is_refused(cell: str, source: str, tmp_path: Path) -> None:
    (tmp_path / "covtype.csv").write_text(cell)
    assert re.search("first row is longer|field larger", message(tmp_path, f"source: {source}"))


def test_a_compressed_covtype_of_zeros_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = b"0," * 54 + b"0\n"
    path = tmp_path / "covtype.data.gz"
    monkeypatch.setattr("flexhpc.data.uci._MOST_BYTES", 2**20)
    for content in (bytes(2**20 + 1), row * 10_000):
        path.write_bytes(gzip.compress(content))
        assert "larger than 1,048,576 bytes after decompression" in message(
            tmp_path, "source: covtype, root: '{}'"
        )
    monkeypatch.setattr("flexhpc.data.uci._MOST_ROWS", 100)
    path.write_bytes(gzip.compress(row * 101))
    assert "has more than 100 rows" in message(tmp_path, "source: covtype, root: '{}'")


def test_an_excel_sheet_of_two_distant_cells_is_refused(tmp_path: Path) -> None:
    """The reader would allocate all cells between them, and abort Python."""
    path = tmp_path / "credit.xlsx"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            "xl/worksheets/sheet1.xml", '<c r="A1"><v>1</v></c><c r="XFD1048576"><v>1</v></c>'
        )
    assert "1,048,576 rows of 16,384 columns are too many" in message(
        tmp_path, "source: credit, root: '{}/credit.xlsx'"
    )


def test_an_array_larger_than_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Memory:
        available = 1_000

    np.savez_compressed(tmp_path / "t.npz", x=np.zeros((400, 3)), y=np.arange(400) % 2)
    monkeypatch.setattr(raw_files.psutil, "virtual_memory", Memory)
    assert (
        "t.npz: array x is larger than the available memory (0.0 GB of 0.0 GB); save it as .npy"
        in message(tmp_path, "source: arrays, path: '{}/t.npz'")
    )
