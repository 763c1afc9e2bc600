"""Test covtype, adult and credit in all distributed file layouts, intact and damaged."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import joblib
import numpy as np
import pytest

from flexhpc.data import load_test_set
from flexhpc.errors import PointError
from tests.conftest import SHARED
from tests.data.writers import (
    RNG,
    UNPICKLED,
    Malicious,
    encode_xls,
    load,
    one_line_error,
    section,
    write_text,
)


def covtype_rows(n: int = 40) -> np.ndarray:
    values = np.zeros((n, 55), dtype=np.int64)
    values[:, :10] = RNG.integers(-100, 7_000, (n, 10))
    values[np.arange(n), 10 + RNG.integers(0, 4, n)] = 1
    values[np.arange(n), 14 + RNG.integers(0, 40, n)] = 1
    values[:, 54] = 1 + np.arange(n) % 7
    return values


def as_csv(rows: np.ndarray, header: str = "") -> str:
    return header + "".join(",".join(map(str, row)) + "\n" for row in rows)


def write_covtype_cache(folder: Path, rows: np.ndarray, compress: int = 9) -> None:
    cache = folder / "covertype"
    cache.mkdir(parents=True)
    joblib.dump(rows[:, :-1].astype(np.float64), cache / "samples_py3", compress=compress)
    joblib.dump(rows[:, -1].astype(np.int32), cache / "targets_py3", compress=compress)


def test_covtype_layouts_give_equal_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = covtype_rows()
    roots = [tmp_path / name for name in ("gz", "plain", "csv", "cache", "raw")]
    for root in roots[:3]:
        root.mkdir()
    (roots[0] / "covtype.data.gz").write_bytes(gzip.compress(as_csv(rows).encode()))
    (roots[1] / "covtype.data").write_text(as_csv(rows))
    header = ",".join([*(f"f{i}" for i in range(54)), "Cover_Type"]) + "\n"
    (roots[2] / "COVTYPE.csv").write_text(as_csv(rows, header))
    write_covtype_cache(roots[3], rows)
    write_covtype_cache(roots[4], rows, compress=0)
    loaded = [load("covtype", root=root) for root in [*roots, roots[0] / "covtype.data.gz"]]
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLEXHPC_DATA", raising=False)
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(roots[3]))
    loaded.append(load("covtype"))
    assert len({samples.fingerprint for samples in loaded}) == 1
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path / "none"))
    with pytest.raises(PointError, match="was not found"):
        load("covtype")  # not from the cache of loaded sources
    samples = loaded[0]
    np.testing.assert_array_equal(samples.inputs.rows, rows[:, :-1])
    np.testing.assert_array_equal(samples.labels, rows[:, -1] - 1)
    assert samples.classes == 7
    inputs = samples.select_inputs(np.arange(40))
    np.testing.assert_array_equal(inputs[:, 10:], rows[:, 10:-1])
    np.testing.assert_allclose(inputs[:, :10].std(axis=0), 1, rtol=1e-4)


@pytest.mark.parametrize(
    "content",
    [Malicious(), [1, 2], np.array([Malicious(), 1], dtype=object), np.zeros((40, 53)),
     np.zeros((39, 54)), np.zeros((40, 54), np.float32)],
)  # fmt: skip
def test_covtype_cache_of_wrong_content_is_rejected_and_not_unpickled(
    tmp_path: Path, content: object
) -> None:
    write_covtype_cache(tmp_path, covtype_rows())
    joblib.dump(content, tmp_path / "covertype" / "samples_py3")
    with pytest.raises(PointError, match="cannot be read as scikit-learn's cache of covtype"):
        load("covtype", root=tmp_path)
    assert not UNPICKLED.exists()


@pytest.mark.parametrize("name", ["samples_py3", "targets_py3"])
def test_truncated_or_incomplete_covtype_cache_is_rejected(tmp_path: Path, name: str) -> None:
    write_covtype_cache(tmp_path, covtype_rows())
    path = tmp_path / "covertype" / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(PointError, match="cannot be read as scikit-learn's cache"):
        load("covtype", root=tmp_path)
    (tmp_path / "covertype" / "targets_py3").unlink(missing_ok=True)
    with pytest.raises(PointError, match="_py3: cannot be read as scikit-learn's cache"):
        load("covtype", root=tmp_path)


ADULT = """\
39, State-gov, 77516, Bachelors, 13, Never-married, Adm-clerical, Not-in-family, White, Male, \
2174, 0, 40, United-States, <=50K
50, ?, 83311, Bachelors, 13, Divorced, Exec-managerial, Husband, White, Male, 0, 0, 13, ?, >50K
28, Private, 338409, Masters, 14, Divorced, Prof-specialty, Wife, Black, Female, 0, 0, 40, Cuba, \
<=50K
"""
ADULT_HEADER = "age, workclass, fnlwgt, education, education-num, marital-status, occupation, \
relationship, race, sex, capital-gain, capital-loss, hours-per-week, native-country, Salary\n"
ADULT_TEST = """\
|1x3 Cross validator
25, Private, 226802, 11th, 7, Never-married, ?, Own-child, Black, Male, 0, 0, 40, Cuba, <=50K.
38, State-gov, 89814, Masters, 9, Divorced, Adm-clerical, Husband, White, Male, 0, 0, 50, ?, >50K.

"""


@pytest.mark.parametrize(
    "text",
    [ADULT + "\n", ADULT_HEADER + ADULT, ADULT.replace(", ", ",") + "\n\n"],
    ids=["plain", "with header", "without spaces"],
)
def test_adult_copies_give_equal_samples(tmp_path: Path, text: str) -> None:
    write_text(tmp_path / "Adult.data", text)
    write_text(tmp_path / "adult.test", ADULT_TEST)
    samples = load("adult", root=tmp_path)
    reference = load("adult", root=write_text(tmp_path / "reference.csv", ADULT))
    assert samples.fingerprint == reference.fingerprint
    assert samples.labels.tolist() == [0, 1, 0]
    inputs = samples.select_inputs(np.arange(3))
    assert inputs.shape == (3, 26)
    assert not np.isnan(inputs).any()
    np.testing.assert_array_equal(inputs[:, 1:4], [[0, 1, 0], [0, 0, 1], [1, 0, 0]])
    test = load_test_set(section(source="adult", root=tmp_path), 0)
    assert test.labels.tolist() == [0, 1]
    test_inputs = test.select_inputs(np.arange(2))
    np.testing.assert_array_equal(test_inputs[:, 1:4], [[1, 0, 0], [0, 1, 0]])
    np.testing.assert_array_equal(test_inputs[:, 5:7], [[0, 0], [0, 1]])  # 11th: only in the test
    ages = (np.array([25, 38]) - samples.inputs.mean[0]) / samples.inputs.deviation[0]
    np.testing.assert_allclose(test_inputs[:, 0], ages, rtol=1e-5)


CREDIT_HEADER = ",".join(["ID", *(f"X{i}" for i in range(1, 24)), "Y"]) + "\n"
CREDIT_NAMES = [
    "LIMIT_BAL", "SEX", "EDUCATION", "MARRIAGE", "AGE",
    *(f"PAY_{i}" for i in (0, 2, 3, 4, 5, 6)),
    *(f"BILL_AMT{i}" for i in range(1, 7)), *(f"PAY_AMT{i}" for i in range(1, 7)),
]  # fmt: skip


def credit_rows(n: int = 12) -> np.ndarray:
    rows = RNG.integers(0, 5_000, (n, 25))
    rows[:, 0] = np.arange(1, n + 1)
    rows[:, 2:5] = RNG.integers(1, 3, (n, 3))
    rows[0, 2:5], rows[1, 2:5] = 1, 2
    rows[:, -1] = np.arange(n) % 2
    return rows


def test_credit_layouts_give_equal_samples(tmp_path: Path) -> None:
    rows = credit_rows()
    names = ",".join(["ID", *CREDIT_NAMES]) + ","
    floats = rows.astype(object)
    floats[:, 1] = [f"{value}.0" for value in rows[:, 1]]
    two_headers = CREDIT_HEADER.removeprefix("ID") + names + "default payment next month\n"
    texts = {
        "kaggle/UCI_Credit_Card.csv": as_csv(floats, names + "default.payment.next.month\n"),
        "uci/uci_credit_card.csv": as_csv(rows, CREDIT_HEADER),
        "two/Default of Credit Card Clients.csv": as_csv(rows, two_headers),
    }
    loaded = []
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir()
        loaded.append(load("credit", root=write_text(tmp_path / name, text).parent))
    cells: list[list[str | float]] = [
        ["", *(f"X{i}" for i in range(1, 24)), "Y"],
        ["ID", *CREDIT_NAMES, "default payment next month"],
        *rows.astype(float).tolist(),
    ]
    (tmp_path / "excel").mkdir()
    workbook = tmp_path / "excel" / "default of credit card clients.xls"
    workbook.write_bytes(encode_xls(cells))
    loaded.append(load("credit", root=tmp_path / "excel"))
    assert len({samples.fingerprint for samples in loaded}) == 1
    assert loaded[0].shape == (20 + 3 * 2,)
    assert loaded[0].labels.tolist() == rows[:, -1].tolist()
    inputs = loaded[0].select_inputs(np.arange(12))
    np.testing.assert_array_equal(inputs[:, 1:3], np.eye(2)[rows[:, 2] - 1])
    no_name = write_text(tmp_path / "no_name.csv", as_csv(rows, CREDIT_HEADER.replace("Y", "")))
    with pytest.raises(PointError, match="needs a header with the target"):
        load("credit", root=no_name)
    workbook.write_bytes(workbook.read_bytes()[:700])
    with pytest.raises(PointError, match=r"clients\.xls: cannot be read"):
        load("credit", root=workbook)


COVTYPE = covtype_rows()
CREDIT = as_csv(credit_rows(), CREDIT_HEADER)
WITHOUT_IDS = "\n".join(line.partition(",")[2] for line in CREDIT.split("\n"))
DAMAGED = [
    ("covtype.data", as_csv(COVTYPE[:, 1:]), "covtype has 54 features"),
    ("covtype.data", as_csv(np.c_[COVTYPE[:, :-1], COVTYPE[:, -1] + 1]), "be from 1 to 7"),
    ("covtype.data", as_csv(COVTYPE.astype(object) * np.array([*"x" * 54, 1])), "be read"),
    ("adult.data", ADULT.replace(">50K", "rich"), "labels must be <=50K or >50K"),
    ("adult.data", ADULT.replace(", Cuba", ""), "labels must be"),
    ("adult.data", re.sub("^[0-9]+, ", "", ADULT, flags=re.M), "adult has 15"),
    ("adult.data", ADULT.replace("77516", "many"), "many"),
    ("adult.data", "", "cannot be read"),
    ("adult.data", ADULT_HEADER, "labels must be"),
    ("credit.csv", CREDIT.replace(",Y\n", ",Z\n"), "needs a header with"),
    ("credit.csv", CREDIT.replace("X4,", ""), r"credit\.csv"),
    ("credit.csv", WITHOUT_IDS.replace("X1,", ""), r"credit\.csv"),
    ("credit.csv", CREDIT.partition("\n")[2], "needs a header with"),
    ("credit.csv", CREDIT.replace("\n2,", "\n2,few"), "few"),
    ("credit.csv", CREDIT.replace(",1\n", ",2\n"), "target must be 0 or 1"),
    ("credit.csv", "", "cannot be read"),
]


@pytest.mark.parametrize(("name", "text", "expected"), DAMAGED)
def test_damaged_table_is_one_error_message(
    tmp_path: Path, name: str, text: str, expected: str
) -> None:
    path = write_text(tmp_path / name, text)
    with one_line_error(expected):
        load(name.partition(".")[0], root=path)


@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared data next to the checkout")
@pytest.mark.parametrize(
    ("source", "name", "features", "counts", "conflicts", "unfittable"),
    [
        ("covtype", "covtype_15k.csv", 54, [5487, 7292, 931, 67, 238, 466, 519], 0, 0),
        ("adult", "adult.data", 108, [24_720, 7_841], 1, 1),
        ("credit", "uci_credit_card.csv", 33, [23_364, 6_636], 21, 21),
    ],
)
def test_published_tables(
    source: str, name: str, features: int, counts: list[int], conflicts: int, unfittable: int
) -> None:
    samples = load(source, root=SHARED / "data" / name)
    assert samples.shape == (features,)
    np.testing.assert_array_equal(np.bincount(samples.labels), counts)
    assert (samples.conflicts, samples.unfittable) == (conflicts, unfittable)
    dropped = load(source, root=SHARED / "data" / name, conflicts="drop")
    assert dropped.n_limit == sum(counts) - unfittable
    inputs = samples.select_inputs(np.arange(sum(counts)))
    scaled = samples.source.standardised_mask
    np.testing.assert_allclose(inputs[:, scaled].mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(inputs[:, scaled].std(axis=0), 1, atol=1e-3)


@pytest.mark.parametrize(
    ("source", "file"),
    [("covtype", "covtype.data.gz"), ("adult", "adult.data"), ("credit", "clients.xls")],
)
def test_missing_table_error_names_folder_and_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, file: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path / "none"))
    monkeypatch.delenv("FLEXHPC_DATA", raising=False)
    with pytest.raises(PointError, match=f"{source} was not found in data.*{file}"):
        load(source)
