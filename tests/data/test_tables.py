"""Encoding of the columns of a table, and invalid tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flexhpc.data import Samples, load_test_set
from flexhpc.errors import PointError
from tests.data.writers import load, one_line_error, section, write_text


def load_table(path: Path, target: str = "y", **keys: Any) -> Samples:
    return load("table", path=path, target=target, **keys)


def test_numbers_are_standardised_and_text_is_one_hot(tmp_path: Path) -> None:
    path = write_text(tmp_path / "t.csv", "n,t,y\n1,b,no\n3,a,yes\n5,b,no\n")
    samples = load_table(path)
    assert samples.labels.tolist() == [0, 1, 0]
    assert samples.shape == (3,)
    expected = [[-1.2247449, 0, 1], [0, 1, 0], [1.2247449, 0, 1]]
    np.testing.assert_allclose(samples.select_inputs(np.arange(3)), expected, rtol=1e-6)


def test_missing_values_become_the_mean_and_an_indicator(tmp_path: Path) -> None:
    path = write_text(tmp_path / "t.csv", "n,t,full,y\n1,b,1,0\n,?,2,1\n5,b,2,0\n?,a,4,1\n")
    inputs = load_table(path).select_inputs(np.arange(4))
    assert inputs.shape == (4, 6)
    np.testing.assert_allclose(inputs[:, 0], [-1, 0, 1, 0])
    np.testing.assert_array_equal(inputs[:, 1], [0, 1, 0, 1])
    np.testing.assert_array_equal(inputs[:, 2:5], [[0, 1, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]])


def test_missing_values_become_the_mean_of_the_training_rows(tmp_path: Path) -> None:
    rows = "".join(f"{i * i if i % 5 else ''},{i % 2}\n" for i in range(100))
    path = write_text(tmp_path / "t.csv", "x,y\n" + rows)
    samples = load_table(path, test_fraction=0.4)
    test = load_test_set(section(source="table", path=path, target="y", test_fraction=0.4), 0)
    train = np.array([i * i for i in samples.pool if i % 5], dtype=np.float64)
    np.testing.assert_allclose(samples.inputs.mean[0], train.mean(), rtol=1e-6)
    np.testing.assert_allclose(samples.inputs.deviation[0], train.std(), rtol=1e-6)
    missing = np.flatnonzero(test.rows % 5 == 0)
    assert len(missing) > 3
    np.testing.assert_array_equal(test.select_inputs(missing), [[0, 1]] * len(missing))


def test_categorical_and_dropped_columns(tmp_path: Path) -> None:
    path = write_text(tmp_path / "t.csv", "id,code,x,y\n1,10,.5,0\n2,9,.6,1\n3,10,.7,2\n")
    samples = load_table(path, drop=["id"], categorical=["code"])
    assert samples.shape == (3,)
    codes = samples.select_inputs(np.arange(3))[:, :2]
    np.testing.assert_array_equal(codes, [[0, 1], [1, 0], [0, 1]])
    assert load_table(path, drop=["id"]).shape == (2,)
    assert load_table(path).fingerprint != load_table(path, drop=["id"]).fingerprint


@pytest.mark.parametrize(
    ("text", "keys", "expected"),
    [
        ("a,y\n1,0\n2,1\n", {"target": "z"}, r"data\.target: .* has no column z; it has a, y"),
        ("a,y\n1,0\n2,1\n", {"drop": ["b"]}, r"data\.drop: .* has no column b"),
        ("a,y\n1,0\n2,1\n", {"categorical": ["b"]}, r"data\.categorical: .* has no column b"),
        ("a,y\n1,0\n2,1\n", {"drop": ["a"]}, "no columns except the target"),
        ("a,y\n1,0\n2,\n", {}, "target y is missing in 1 of 2 rows"),
        ("a,y\n1,0.5\n2,1\n", {}, "contains fractions"),
        ("a,y\n1,1\n2,1\n", {}, "has 1 classes"),
        ("a,y\n1,0\ninf,1\n", {}, "too large for float32"),
        ("a,y\n1,0\n1e300,1\n", {}, "too large for float32"),
        ("a,y\n1,0,3\n2,1,3\n", {}, "Length of header or names does not match"),
        ("a,y\n1,0\n2,1,3,4\n", {}, "cannot be read as a CSV or Parquet table"),
        ("", {}, "cannot be read as a CSV or Parquet table"),
        ("PAR1", {}, "cannot be read as a CSV or Parquet table"),
        ("a,y\n" + "".join(f"n{i},{i % 2}\n" for i in range(1_001)), {}, "1001 categories"),
    ],
)  # fmt: skip
def test_invalid_table_is_one_error_message(
    tmp_path: Path, text: str, keys: dict, expected: str
) -> None:
    path = write_text(tmp_path / "t.csv", text)
    with one_line_error(expected):
        load_table(path, **keys)


def test_missing_or_unsupported_table_file_is_rejected(tmp_path: Path) -> None:
    unreadable = "cannot be read as a CSV or Parquet table"
    dates = pd.DataFrame({"day": pd.to_datetime(["2020-01-01", "2020-01-02"]), "y": [0, 1]})
    dates.to_parquet(tmp_path / "dates.parquet")
    truncated = (tmp_path / "dates.parquet").read_bytes()[:-50]
    (tmp_path / "truncated.parquet").write_bytes(truncated)
    for name in ("t.csv.zst", "t.zip"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 damaged")
    for name, problem in (
        ("missing.csv", r"data\.path: file not found"), ("t.csv.zst", unreadable),
        ("t.zip", unreadable), ("dates.parquet", "column day has values of type datetime64"),
        ("truncated.parquet", unreadable),
    ):  # fmt: skip
        with pytest.raises(PointError, match=problem):
            load_table(tmp_path / name)
