"""The three tables of UCI in all the layouts that they are found in, good and damaged."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest

from flexhpc.config.sections.data import KnownTable
from flexhpc.data import Samples, load_samples, load_test
from flexhpc.errors import PointError
from tests.conftest import SHARED
from tests.data.writers import CALLED, RNG, Evil, written, xls


def known(source: str, root: Path, **keys: Any) -> Samples:
    data = KnownTable.model_validate({"source": source, "root": str(root), **keys})
    return load_samples(data, 0)


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


def test_covtype_is_the_same_in_every_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = covtype_rows()
    places = [tmp_path / name for name in ("gz", "plain", "csv", "cache", "raw")]
    for place in places[:3]:
        place.mkdir()
    (places[0] / "covtype.data.gz").write_bytes(gzip.compress(as_csv(rows).encode()))
    (places[1] / "covtype.data").write_text(as_csv(rows))
    header = ",".join([*(f"f{i}" for i in range(54)), "Cover_Type"]) + "\n"
    (places[2] / "COVTYPE.csv").write_text(as_csv(rows, header))
    write_covtype_cache(places[3], rows)
    write_covtype_cache(places[4], rows, compress=0)
    found = [known("covtype", place) for place in [*places, places[0] / "covtype.data.gz"]]
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLEXHPC_DATA", raising=False)
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(places[3]))
    found.append(load_samples(KnownTable(source="covtype"), 0))
    assert len({samples.fingerprint for samples in found}) == 1
    samples = found[0]
    np.testing.assert_array_equal(samples.dataset.inputs, rows[:, :-1])
    np.testing.assert_array_equal(samples.labels, rows[:, -1] - 1)
    assert samples.classes == 7
    seen = samples.standardised(np.arange(40))
    np.testing.assert_array_equal(seen[:, 10:], rows[:, 10:-1])
    np.testing.assert_allclose(seen[:, :10].std(axis=0), 1, rtol=1e-4)


@pytest.mark.parametrize(
    "content",
    [Evil(), [1, 2], np.array([Evil(), 1], dtype=object), np.zeros((40, 53)), np.zeros((39, 54)),
     np.zeros((40, 54), np.float32)],
)  # fmt: skip
def test_a_damaged_cache_of_covtype(tmp_path: Path, content: object) -> None:
    write_covtype_cache(tmp_path, covtype_rows())
    joblib.dump(content, tmp_path / "covertype" / "samples_py3")
    with pytest.raises(PointError, match="cannot be read as scikit-learn's cache of covtype"):
        known("covtype", tmp_path)
    assert not CALLED.exists()


@pytest.mark.parametrize("name", ["samples_py3", "targets_py3"])
def test_a_cache_of_covtype_that_is_cut_or_half_missing(tmp_path: Path, name: str) -> None:
    write_covtype_cache(tmp_path, covtype_rows())
    path = tmp_path / "covertype" / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(PointError, match="cannot be read as scikit-learn's cache"):
        known("covtype", tmp_path)
    (tmp_path / "covertype" / "targets_py3").unlink(missing_ok=True)
    with pytest.raises(PointError, match="_py3: cannot be read as scikit-learn's cache"):
        known("covtype", tmp_path)


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


@pytest.mark.parametrize("header", ["", ADULT_HEADER])
def test_adult(tmp_path: Path, header: str) -> None:
    written(tmp_path / "adult.data", header + ADULT + "\n")
    written(tmp_path / "adult.test", ADULT_TEST)
    samples = known("adult", tmp_path)
    assert samples.labels.tolist() == [0, 1, 0]
    seen = samples.standardised(np.arange(3))
    assert seen.shape == (3, 26)
    assert not np.isnan(seen).any()
    np.testing.assert_array_equal(seen[:, 1:4], [[0, 1, 0], [0, 0, 1], [1, 0, 0]])
    test = load_test(KnownTable(source="adult", root=str(tmp_path)), 0)
    assert test.labels.tolist() == [0, 1]
    rows = test.standardised(np.arange(2))
    np.testing.assert_array_equal(rows[:, 1:4], [[1, 0, 0], [0, 1, 0]])
    np.testing.assert_array_equal(rows[:, 5:7], [[0, 0], [0, 1]])  # 11th is in no training row
    np.testing.assert_allclose(
        rows[:, 0], (np.array([25, 38]) - samples.mean[0]) / samples.deviation[0], rtol=1e-5
    )


def test_adult_is_the_same_however_its_copy_is_written(tmp_path: Path) -> None:
    prints = set()
    for text in (ADULT, ADULT_HEADER + ADULT, ADULT.replace(", ", ",") + "\n\n"):
        written(tmp_path / "Adult.data", text)
        prints.add(known("adult", tmp_path).fingerprint)
    assert len(prints) == 1


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


def test_credit_is_the_same_in_every_layout(tmp_path: Path) -> None:
    rows = credit_rows()
    kaggle = ",".join(["ID", *CREDIT_NAMES, "default.payment.next.month"]) + "\n"
    floats = rows.astype(object)
    floats[:, 1] = [f"{value}.0" for value in rows[:, 1]]
    texts = {
        "kaggle/UCI_Credit_Card.csv": as_csv(floats, kaggle),
        "uci/uci_credit_card.csv": as_csv(rows, CREDIT_HEADER),
        "two/Default of Credit Card Clients.csv": as_csv(
            rows,
            CREDIT_HEADER.removeprefix("ID")
            + kaggle.replace("default.payment.", "default payment "),
        ).replace("default payment next.month", "default payment next month"),
    }
    found = []
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir()
        found.append(known("credit", written(tmp_path / name, text).parent))
    assert len({samples.fingerprint for samples in found}) == 1
    assert found[0].shape == (20 + 3 * 2,)
    assert found[0].labels.tolist() == rows[:, -1].tolist()
    seen = found[0].standardised(np.arange(12))
    np.testing.assert_array_equal(seen[:, 1:3], np.eye(2)[rows[:, 2] - 1])


def excel_rows(rows: np.ndarray) -> list[list[str | float]]:
    return [
        ["", *(f"X{i}" for i in range(1, 24)), "Y"],
        ["ID", *CREDIT_NAMES, "default payment next month"],
        *rows.astype(float).tolist(),
    ]


def test_credit_as_xls(tmp_path: Path) -> None:
    rows = credit_rows()
    path = tmp_path / "default of credit card clients.xls"
    path.write_bytes(xls(excel_rows(rows)))
    csv = known("credit", written(tmp_path / "credit.csv", as_csv(rows, CREDIT_HEADER)))
    assert known("credit", tmp_path).fingerprint == csv.fingerprint
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(PointError, match=r"clients\.xls: cannot be read"):
        known("credit", path)


def covtype(change: Callable[[np.ndarray], np.ndarray] = np.asarray) -> str:
    return as_csv(change(covtype_rows()))


CREDIT = as_csv(credit_rows(), CREDIT_HEADER)
WITHOUT_IDS = "\n".join(line.partition(",")[2] for line in CREDIT.split("\n"))
DAMAGED = [
    ("covtype.data", covtype(lambda rows: rows[:, 1:]), "covtype has 54 features"),
    ("covtype.data", covtype(lambda rows: np.c_[rows[:, :-1], rows[:, -1] + 1]), "must be 1 to 7"),
    (
        "covtype.data",
        covtype(lambda rows: rows.astype(object) * np.array([*"x" * 54, 1])),
        "be read",
    ),
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
def test_damaged_tables(tmp_path: Path, name: str, text: str, expected: str) -> None:
    path = written(tmp_path / name, text)
    with pytest.raises(PointError, match=expected) as caught:
        known(name.partition(".")[0], path)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared data beside the project")
@pytest.mark.parametrize(
    ("source", "name", "shape", "counts", "conflicts", "unfittable"),
    [
        ("covtype", "covtype_15k.csv", 54, [5487, 7292, 931, 67, 238, 466, 519], 0, 0),
        ("adult", "adult.data", 108, [24_720, 7_841], 1, 1),
        ("credit", "uci_credit_card.csv", 33, [23_364, 6_636], 21, 21),
    ],
)
def test_real_tables(
    source: str, name: str, shape: int, counts: list[int], conflicts: int, unfittable: int
) -> None:
    samples = known(source, SHARED / "data" / name)
    assert samples.shape == (shape,)
    np.testing.assert_array_equal(np.bincount(samples.labels), counts)
    assert (samples.conflicts, samples.unfittable) == (conflicts, unfittable)
    dropped = known(source, SHARED / "data" / name, conflicts="drop")
    assert dropped.n_limit == sum(counts) - unfittable
    seen = samples.standardised(np.arange(sum(counts)))
    scaled = samples.dataset.scaled
    np.testing.assert_allclose(seen[:, scaled].mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(seen[:, scaled].std(axis=0), 1, atol=1e-3)


def test_a_table_that_is_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path / "none"))
    monkeypatch.delenv("FLEXHPC_DATA", raising=False)
    for source, wanted in (("covtype", "covtype.data.gz"), ("adult", "adult.data"),
                           ("credit", "clients.xls")):  # fmt: skip
        with pytest.raises(PointError, match=f"{source} was not found in data.*{wanted}"):
            load_samples(KnownTable.model_validate({"source": source}), 0)
