from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexhpc.data import draw_subset
from flexhpc.data.dataset import Split
from flexhpc.data.labelling import find_conflicts
from flexhpc.data.summary import compute_summary
from flexhpc.errors import PointError
from flexhpc.seeds import ProbeSeeds
from tests.data.test_tables import load_table
from tests.data.writers import cifar_batch, load, write_cifar100, write_text


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=40),
    st.data(),
)
def test_conflicts_equal_brute_force(rows: list[tuple[int, int]], draw: st.DataObject) -> None:
    inputs, labels = np.array([[x] for x, _ in rows], np.float32), np.array([y for _, y in rows])
    summary = compute_summary(Split.from_arrays(inputs, labels), classes=4)
    ids = st.lists(st.sampled_from(range(len(rows))), min_size=1, unique=True)
    pool = sorted(draw.draw(st.one_of(st.just(list(range(len(rows)))), ids)))
    conflict_groups, minority = find_conflicts(summary, labels, np.array(pool))
    expected_groups, expected_minority = 0, []
    for value in {x for x, _ in rows}:
        members = [i for i, (x, _) in enumerate(rows) if x == value and i in pool]
        votes = [rows[i][1] for i in members]
        majority = min(set(votes), key=lambda y: (-votes.count(y), y), default=0)
        expected_groups += len(set(votes)) > 1
        expected_minority += [i for i in members if rows[i][1] != majority]
    assert sum(count for _, count in conflict_groups) == expected_groups
    assert minority.tolist() == sorted(expected_minority)


def test_dropped_conflicts_are_not_in_the_pool(tmp_path: Path) -> None:
    path = write_text(tmp_path / "t.csv", "x,y\n1,0\n1,0\n1,1\n2,2\n3,3\n")
    samples, without_conflicts = load_table(path), load_table(path, conflicts="drop")
    assert (samples.conflicts, samples.unfittable, samples.n_limit) == (1, 1, 5)
    assert without_conflicts.pool.tolist() == [0, 1, 3, 4]
    for n_max, expected in ((3, 3), (4, 4), (5, 4), (None, 4)):
        assert load_table(path, conflicts="drop", n_max=n_max).n_limit == expected


@pytest.mark.parametrize(
    ("inputs", "conflicts"),
    [("gaussian", 0), ("permuted_each", 0), ("permuted", 1), ("original", 1)],
)
def test_distinct_inputs_have_no_conflicts(tmp_path: Path, inputs: str, conflicts: int) -> None:
    path = write_text(tmp_path / "t.csv", "a,b,y\n1,4,0\n1,4,1\n2,5,2\n")
    samples = load_table(path, inputs=inputs)
    assert (samples.conflicts, samples.unfittable) == (conflicts, conflicts)


def test_conflict_groups_are_counted_by_composition(tmp_path: Path) -> None:
    rows = ["1,0", "1,1", "1,1", "2,0", "2,0", "3,1", "3,0", "4,2", "4,0", "4,1", "4,1", "5,0",
            "6,1", "6,0", "6,1"]  # fmt: skip
    path = write_text(tmp_path / "t.csv", "\n".join(["x,y", *rows]) + "\n")
    assert load_table(path).conflict_groups == [((1, 1), 1), ((2, 1), 2), ((2, 1, 1), 1)]
    dropped = load_table(path, conflicts="drop")
    assert (dropped.conflicts, dropped.conflict_groups) == (4, [])
    assert load_table(path, inputs="gaussian").conflict_groups == []


def test_random_labels_are_uniform_and_depend_on_the_seed() -> None:
    first, again, other = (load("digits", seed, labels="random") for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.labels, again.labels)
    assert abs(np.mean(first.labels == other.labels) - 0.1) < 0.03
    assert abs(np.mean(first.labels == load("digits", 3).labels) - 0.1) < 0.03
    assert np.bincount(first.labels, minlength=10).min() > 130
    samples = load("digits", labels="random", classes=3)
    counts = np.bincount(samples.labels)
    assert len(counts) == samples.classes == 3
    assert counts.min() > 500


@settings(max_examples=15)
@given(st.floats(0.0005, 1), st.integers(0, 2**31))
def test_corrupted_fraction_is_exact(corruption: float, seed: int) -> None:
    clean = load("digits", seed)
    samples = load("digits", seed, labels="corrupted", corruption=corruption)
    is_corrupted = samples.labels != clean.labels
    assert is_corrupted.sum() == round(corruption * 1_797)
    assert samples.labels.min() >= 0
    assert samples.labels.max() <= 9
    again = load("digits", seed, labels="corrupted", corruption=corruption)
    np.testing.assert_array_equal(samples.labels, again.labels)


def test_corrupted_labels_are_uniform_over_the_wrong_classes() -> None:
    clean = load("digits").labels
    labels = load("digits", labels="corrupted", corruption=1.0).labels
    steps = np.bincount((labels - clean) % 10, minlength=10)
    assert steps[0] == 0
    assert steps[1:].min() > 150
    with pytest.raises(PointError, match=r"data\.corruption: 0\.0002 of 1797 .* rounds to 0"):
        load("digits", labels="corrupted", corruption=2e-4)


@settings(max_examples=15)
@given(st.integers(2, 10), st.integers(0, 2**31))
def test_random_merge_has_groups_of_near_equal_size(classes: int, seed: int) -> None:
    samples = load("digits", seed, merge="random", classes=classes)
    assert samples.classes == classes
    pairs = set(zip(samples.source.train.labels.tolist(), samples.labels.tolist(), strict=True))
    assert len(pairs) == 10, "each class is in one group"
    sizes = Counter(new for _, new in pairs)
    assert len(sizes) == classes
    assert max(sizes.values()) - min(sizes.values()) <= 1


def test_random_merge_depends_on_the_seed_but_not_on_corruption() -> None:
    merged = [load("digits", seed, merge="random", classes=2).labels for seed in range(6)]
    assert len({labels.tobytes() for labels in merged}) > 1
    samples = load("digits", 3, merge="random", classes=2, labels="corrupted", corruption=0.1)
    assert samples.classes == 2
    assert (samples.labels != merged[3]).sum() == 180, "labels are merged, then corrupted"


def test_class_map_replaces_classes() -> None:
    new = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
    samples = load("digits", class_map=new)
    assert samples.classes == 3
    np.testing.assert_array_equal(samples.labels, np.array(new)[samples.source.train.labels])
    with pytest.raises(PointError, match=r"data\.class_map: has 3 entries, but .* 10 classes"):
        load("digits", class_map=[0, 1, 1])
    with pytest.raises(PointError, match=r"data\.classes: 11 is more than the 10"):
        load("digits", merge="random", classes=11)


def test_coarse_labels_of_cifar100(tmp_path: Path) -> None:
    batch = cifar_batch(300, "fine_labels", 100)
    batch["coarse_labels"] = [fine * 7 % 20 for fine in batch["fine_labels"]]
    write_cifar100(tmp_path, batch)
    samples = load("cifar100", root=tmp_path, merge="coarse")
    assert samples.labels.tolist() == batch["coarse_labels"]
    assert samples.classes == 20
    few = cifar_batch(3, "fine_labels", 100) | {"fine_labels": [7, 7, 8]}
    for coarse, problem in (([1, 2, 3], "class 7 has several"), ([1, 1, 20], "must be 0 to 19")):
        write_cifar100(tmp_path / str(coarse[1]), few | {"coarse_labels": coarse})
        with pytest.raises(PointError, match=problem):
            load("cifar100", root=tmp_path / str(coarse[1]), merge="coarse")


def test_original_labels_of_gaussian_inputs_are_linearly_separable() -> None:
    samples = load("gaussian", 1, dims=5, classes=3, size=2_000)
    inputs = samples.select_inputs(np.arange(2_000))
    assert abs(inputs.mean()) < 0.03
    assert abs(inputs.std() - 1) < 0.03
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=1e6, max_iter=10_000, fit_intercept=False)
    assert fitted.fit(inputs, samples.labels).score(inputs, samples.labels) > 0.998
    random = load("gaussian", 1, dims=5, classes=3, size=2_000, labels="random").labels
    assert fitted.fit(inputs, random).score(inputs, random) < 0.45


@given(st.integers(1, 60), st.integers(0, 2**40))
def test_subsets_are_distinct_sorted_and_nested(n: int, seed: int) -> None:
    pool = np.arange(0, 120, 2, dtype=np.int64)
    subset = draw_subset(pool, n, seed)
    assert len(np.unique(subset)) == n
    assert set(subset) <= set(pool)
    assert np.all(np.diff(subset) > 0)
    assert set(draw_subset(pool, max(1, n // 2), seed)) <= set(subset)


def test_probe_seeds_are_independent_streams() -> None:
    base = ProbeSeeds.derive(0, 100, 0, nested=False)
    values = [base.init, base.subset, base.labels, base.order]
    assert len(set(values)) == 4
    other_n = ProbeSeeds.derive(0, 101, 0, nested=False)
    assert other_n.labels == base.labels
    assert {other_n.init, other_n.subset, other_n.order}.isdisjoint(values)
    nested = [ProbeSeeds.derive(0, n, 1, nested=True).subset for n in (10, 20)]
    assert nested[0] == nested[1]
    assert all(0 <= value < 2**63 for value in values)
