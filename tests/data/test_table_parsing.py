"""How cells of tables are parsed in each file format, and which rows are headers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from flexhpc.errors import PointError
from tests.data.test_tables import load_table
from tests.data.test_uci import ADULT, covtype_rows
from tests.data.writers import load, write_text

BOOLEANS = [True, False, True, False]


@pytest.mark.parametrize("number_format", ["{:.3e}", "{:.1f}", "{} ", "{}"])
def test_first_row_of_covtype_is_not_a_header(tmp_path: Path, number_format: str) -> None:
    rows = covtype_rows()
    rows[0, 0] = 3_351
    text = "".join(
        ",".join([number_format.format(row[0]), *map(str, row[1:])]) + "\n" for row in rows
    )
    samples = load("covtype", root=write_text(tmp_path / "covtype.data", text))
    np.testing.assert_array_equal(samples.inputs.rows, rows[:, :-1])


@pytest.mark.parametrize("age", ["39.0", "39 ", "3.9e1", "39", "?", "? ", ""])
def test_first_row_of_adult_is_not_a_header(tmp_path: Path, age: str) -> None:
    samples = load("adult", root=write_text(tmp_path / "adult.data", age + ADULT[2:]))
    assert len(samples.labels) == 3
    assert samples.shape == (27 if age.strip() in ("?", "") else 26,)
    value = samples.inputs.rows[0, 0]
    assert np.isnan(value) if samples.shape == (27,) else value == 39


@pytest.mark.parametrize("values", [BOOLEANS, [True, None, True, False]])
@pytest.mark.parametrize("kind", ["csv", "plain", "nullable"])
def test_booleans_are_read_as_numbers(tmp_path: Path, values: list, kind: str) -> None:
    column = pd.array(values, dtype="boolean") if kind == "nullable" else values
    frame = pd.DataFrame({"b": column, "y": [0, 1, 0, 1]})
    path = tmp_path / "t"
    frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path)
    samples = load_table(path)
    assert samples.source.standardised_mask is not None
    assert samples.source.standardised_mask[0]
    expected = [np.nan if value is None else float(value) for value in values]
    np.testing.assert_array_equal(samples.inputs.rows[:, 0], expected)
    assert samples.shape == (1 + (None in values),)


def test_file_format_and_spaces_around_cells_have_no_effect(tmp_path: Path) -> None:
    plain = "n,i,t,b,y\n0.1,4,u,True,p\n,5,v,False,q\n3e-7,6,?,True,p\n"
    padded = 'n,i,t,b,y\n0.1 , 4, u ,True ,"p "\n ? ,5,v  ,False,q\n3e-7,6 ,? , True,p\n'
    clean = load_table(write_text(tmp_path / "plain.csv", plain))
    assert clean.shape == (7,)
    assert load_table(write_text(tmp_path / "padded.csv", padded)).fingerprint == clean.fingerprint
    frame = pd.DataFrame(
        {
            "n": [0.1, None, 3e-7], "i": [4, 5, 6], "t": [" u", "v ", "? "], "b": BOOLEANS[:3],
            "y": ["p ", "q", " p"],
        }
    )  # fmt: skip
    frame.to_parquet(tmp_path / "t.parquet")
    assert load_table(tmp_path / "t.parquet").fingerprint == clean.fingerprint


@pytest.mark.parametrize("values", [["u", "v", None, "u"], [3, 4, None, 3], [3, 4, 5, 3]])
def test_category_dtype_is_read_like_its_values(tmp_path: Path, values: list) -> None:
    frame = pd.DataFrame({"c": values, "y": list("abab")})
    frame.to_parquet(tmp_path / "plain")
    frame.astype("category").to_parquet(tmp_path / "category")
    plain, category = (load_table(tmp_path / name).fingerprint for name in ("plain", "category"))
    assert category == plain


@pytest.mark.parametrize("values", [[[1], [2]], [{"a": 1}, {"a": 2}]])
def test_columns_of_lists_and_structs_must_be_dropped(tmp_path: Path, values: list) -> None:
    path = tmp_path / "t.parquet"
    pa.parquet.write_table(pa.table({"f": values, "g": [1, 2], "y": [0, 1]}), path)
    with pytest.raises(PointError, match="column f has values of type mixed"):
        load_table(path)
    with pytest.raises(PointError, match=r"data\.target: column f of .* has values of type mixed"):
        load_table(path, target="f")
    assert load_table(path, drop=["f"]).shape == (1,)


def stored_and_standardised(path: Path, values: Any) -> tuple[np.ndarray, np.ndarray]:
    """Write a table of one column; return the column as stored, and as input of a network."""
    pd.DataFrame({"t": values, "y": np.arange(len(values)) % 2}).to_csv(path, index=False)
    samples = load_table(path)
    return samples.inputs.rows[:, 0], samples.select_inputs(np.arange(len(values)))[:, 0]


def test_seconds_since_1970_remain_distinct(tmp_path: Path) -> None:
    seconds = 1_700_000_000 + np.random.default_rng(0).permutation(500)
    _, inputs = stored_and_standardised(tmp_path / "t.csv", seconds)
    assert len(np.unique(inputs)) == 500
    expected = (seconds - seconds.mean()) / seconds.std()
    np.testing.assert_allclose(inputs, expected, atol=1e-5)
    _, inputs = stored_and_standardised(tmp_path / "u.csv", np.r_[0, seconds])
    assert len(np.unique(inputs)) == 501, "also with an outlier"


def test_small_integers_and_normal_floats_are_stored_as_float32(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for i, values in enumerate((random.integers(0, 2**24, 300), random.normal(size=20_000))):
        stored, _ = stored_and_standardised(tmp_path / f"{i}.csv", values)
        np.testing.assert_array_equal(stored, values.astype(np.float32))
