"""Any table: what its columns become, and what is refused."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flexhpc.config.sections.data import Table
from flexhpc.data import Samples, load_samples, load_test
from flexhpc.errors import PointError
from tests.data.writers import RNG, written


def table(path: Path, target: str = "y", **keys: Any) -> Samples:
    return load_samples(Table(source="table", path=str(path), target=target, **keys), 0)


def test_numbers_are_standardised_and_text_is_one_hot(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "n,t,y\n1,b,no\n3,a,yes\n5,b,no\n")
    samples = table(path)
    assert samples.labels.tolist() == [0, 1, 0]
    assert samples.shape == (3,)
    expected = [[-1.2247449, 0, 1], [0, 1, 0], [1.2247449, 0, 1]]
    np.testing.assert_allclose(samples.standardised(np.arange(3)), expected, rtol=1e-6)


def test_missing_values_are_the_mean_and_marked(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "n,t,full,y\n1,b,1,0\n,?,2,1\n5,b,2,0\n?,a,4,1\n")
    seen = table(path).standardised(np.arange(4))
    assert seen.shape == (4, 6)
    np.testing.assert_allclose(seen[:, 0], [-1, 0, 1, 0])
    np.testing.assert_array_equal(seen[:, 1], [0, 1, 0, 1])
    np.testing.assert_array_equal(seen[:, 2:5], [[0, 1, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]])


def test_the_mean_of_a_missing_value_is_that_of_the_training_rows(tmp_path: Path) -> None:
    rows = "".join(f"{i * i if i % 5 else ''},{i % 2}\n" for i in range(100))
    data = Table(
        source="table", path=str(written(tmp_path / "t.csv", "x,y\n" + rows)), target="y",
        test_fraction=0.4,
    )  # fmt: skip
    samples, test = load_samples(data, 0), load_test(data, 0)
    train = np.array([i * i for i in samples.pool if i % 5], dtype=np.float64)
    np.testing.assert_allclose(samples.mean[0], train.mean(), rtol=1e-6)
    np.testing.assert_allclose(samples.deviation[0], train.std(), rtol=1e-6)
    gaps = np.flatnonzero(test.rows % 5 == 0)
    assert len(gaps) > 3
    np.testing.assert_array_equal(test.standardised(gaps), [[0, 1]] * len(gaps))


def test_categorical_and_dropped_columns(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "id,code,x,y\n1,10,.5,0\n2,9,.6,1\n3,10,.7,2\n")
    samples = table(path, drop=["id"], categorical=["code"])
    assert samples.shape == (3,)
    np.testing.assert_array_equal(
        samples.standardised(np.arange(3))[:, :2], [[0, 1], [1, 0], [0, 1]]
    )
    assert table(path, drop=["id"]).shape == (2,)
    assert table(path).fingerprint != table(path, drop=["id"]).fingerprint


def test_a_table_is_the_same_in_every_format(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "x": np.where(RNG.random(50) < 0.1, np.nan, RNG.normal(size=50)),
            "whole": RNG.integers(0, 9, 50),
            "text": RNG.choice(["p", "q", "r"], 50),
            "y": RNG.integers(0, 3, 50),
        }
    )
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_csv(tmp_path / "t.csv.gz", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    prints = {table(tmp_path / f"t.{end}").fingerprint for end in ("csv", "csv.gz", "parquet")}
    assert len(prints) == 1
    assert table(tmp_path / "t.csv").shape == (6,)


@pytest.mark.parametrize(
    ("text", "keys", "expected"),
    [
        ("a,y\n1,0\n2,1\n", {"target": "z"}, r"data\.target: .* has no column z; it has a, y"),
        ("a,y\n1,0\n2,1\n", {"drop": ["b"]}, r"data\.drop: .* has no column b"),
        ("a,y\n1,0\n2,1\n", {"categorical": ["b"]}, r"data\.categorical: .* has no column b"),
        ("a,y\n1,0\n2,1\n", {"drop": ["a"]}, "no column but the target"),
        ("a,y\n1,0\n2,\n", {}, "target y is missing in 1 of 2 rows"),
        ("a,y\n1,0.5\n2,1\n", {}, "contains fractions"),
        ("a,y\n1,1\n2,1\n", {}, "has 1 classes"),
        ("a,y\n1,0\ninf,1\n", {}, "infinite or too large"),
        ("a,y\n1,0\n1e300,1\n", {}, "infinite or too large"),
        ("a,y\n1,0,3\n2,1,3\n", {}, "Length of header or names does not match"),
        ("a,y\n1,0\n2,1,3,4\n", {}, "cannot be read as a CSV or Parquet table"),
        ("", {}, "cannot be read as a CSV or Parquet table"),
        ("PAR1", {}, "cannot be read as a CSV or Parquet table"),
        ("a,y\n" + "".join(f"n{i},{i % 2}\n" for i in range(1_001)), {}, "1001 categories"),
    ],
)  # fmt: skip
def test_wrong_tables(tmp_path: Path, text: str, keys: dict, expected: str) -> None:
    path = written(tmp_path / "t.csv", text)
    with pytest.raises(PointError, match=expected) as caught:
        table(path, **keys)
    assert "\n" not in str(caught.value)


def test_tables_of_other_kinds(tmp_path: Path) -> None:
    unreadable = "cannot be read as a CSV or Parquet table"
    dates = pd.DataFrame({"day": pd.to_datetime(["2020-01-01", "2020-01-02"]), "y": [0, 1]})
    dates.to_parquet(tmp_path / "dates.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "dates.parquet").read_bytes()[:-50])
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"a,y\n1,0\n2,1\n" * 99, mtime=0)[:-9])
    for name in ("t.csv.zst", "t.zip"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 damaged")
    for name, problem in (
        ("nowhere.csv", r"data\.path: file not found"), ("t.csv.gz", unreadable),
        ("t.csv.zst", unreadable), ("t.zip", unreadable),
        ("dates.parquet", "column day has values of type datetime64"), ("cut.parquet", unreadable),
    ):  # fmt: skip
        with pytest.raises(PointError, match=problem):
            table(tmp_path / name)
