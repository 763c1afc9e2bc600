from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from flexhpc.data import draw_subset, load_samples
from flexhpc.data.dataset import Dataset, fingerprint, moments, row_hashes
from flexhpc.data.labelling import conflicting, draw_labels
from flexhpc.seeds import ProbeSeeds
from flexhpc.spec.sections import Digits, Gaussian


def dataset(inputs: list, labels: list, classes: int = 4) -> Dataset:
    return Dataset(
        name="test",
        inputs=np.array(inputs, dtype=np.float32).reshape(len(labels), -1),
        labels=np.array(labels, dtype=np.int64),
        classes=classes,
    )


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=40))
def test_conflicts_against_brute_force(rows: list[tuple[int, int]]) -> None:
    data = dataset([[x] for x, _ in rows], [y for _, y in rows])
    groups, losers = conflicting(row_hashes(data.inputs), data.labels)
    expected_groups, expected_losers = 0, []
    for value in {x for x, _ in rows}:
        members = [i for i, (x, _) in enumerate(rows) if x == value]
        labels = [rows[i][1] for i in members]
        majority = min(set(labels), key=lambda y: (-labels.count(y), y))
        expected_groups += len(set(labels)) > 1
        expected_losers += [i for i in members if rows[i][1] != majority]
    assert groups == expected_groups
    assert losers.tolist() == sorted(expected_losers)


def test_dropping_conflicts_takes_them_out_of_the_pool(monkeypatch) -> None:
    import flexhpc.data.load as load

    data = dataset([[1], [1], [1], [2], [3]], [0, 0, 1, 2, 3])
    monkeypatch.setattr(load, "load_digits", lambda: data)
    load._load.cache_clear()
    try:
        reported = load_samples(Digits(source="digits"), seed=0)
        dropped = load_samples(Digits(source="digits", conflicts="drop"), seed=0)
    finally:
        load._load.cache_clear()
    assert (reported.conflicts, reported.unfittable, reported.n_limit) == (1, 1, 5)
    assert dropped.pool.tolist() == [0, 1, 3, 4]
    assert dropped.n_limit == 4


def test_random_labels_are_uniform_and_belong_to_the_sample() -> None:
    first = load_samples(Digits(source="digits", labels="random"), seed=3)
    again = load_samples(Digits(source="digits", labels="random"), seed=3)
    other = load_samples(Digits(source="digits", labels="random"), seed=4)
    original = load_samples(Digits(source="digits"), seed=3)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert abs(np.mean(first.labels == other.labels) - 0.1) < 0.03
    assert abs(np.mean(first.labels == original.labels) - 0.1) < 0.03
    assert np.bincount(first.labels, minlength=10).min() > 130


def test_original_labels_of_gaussian_inputs_are_linearly_separable() -> None:
    samples = load_samples(Gaussian(source="gaussian", dims=5, classes=3, size=2_000), seed=1)
    inputs = samples.standardised(np.arange(2_000))
    assert abs(inputs.mean()) < 0.03
    assert abs(inputs.std() - 1) < 0.03
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=1e6, max_iter=10_000, fit_intercept=False)
    assert fitted.fit(inputs, samples.labels).score(inputs, samples.labels) > 0.998
    random = draw_labels(samples.dataset, "random", 1)
    assert fitted.fit(inputs, random).score(inputs, random) < 0.45


@given(st.integers(1, 60), st.integers(0, 2**40))
def test_subsets_are_distinct_sorted_and_nested(n: int, seed: int) -> None:
    pool = np.arange(0, 120, 2, dtype=np.int64)
    subset = draw_subset(pool, n, seed)
    assert len(np.unique(subset)) == n
    assert set(subset) <= set(pool)
    assert np.all(np.diff(subset) > 0)
    assert set(draw_subset(pool, max(1, n // 2), seed)) <= set(subset)


def test_seeds_are_separate_streams() -> None:
    base = ProbeSeeds.of(0, 100, 0, nested=False)
    values = [base.init, base.subset, base.labels, base.order]
    assert len(set(values)) == 4
    other_n = ProbeSeeds.of(0, 101, 0, nested=False)
    assert other_n.labels == base.labels
    assert {other_n.init, other_n.subset, other_n.order}.isdisjoint(values)
    nested = [ProbeSeeds.of(0, n, 1, nested=True).subset for n in (10, 20)]
    assert nested[0] == nested[1]
    assert all(0 <= value < 2**63 for value in values)


def test_standardisation_uses_the_whole_training_set() -> None:
    samples = load_samples(Digits(source="digits"), seed=0)
    everything = samples.standardised(np.arange(len(samples.dataset)))
    assert abs(everything.mean()) < 1e-4
    assert abs(everything.std() - 1) < 1e-4
    assert everything.dtype == np.float32
    part = samples.standardised(np.arange(5))
    np.testing.assert_array_equal(part, everything[:5])


def test_moments_are_per_channel_and_spare_constant_features() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (50, 3, 4, 4), dtype=np.uint8)
    images[:, 1] = 7
    data = Dataset(name="t", inputs=images, labels=np.zeros(50, np.int64), classes=2)
    mean, deviation = moments(data)
    np.testing.assert_allclose(mean[:, 0, 0], images.mean(axis=(0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(deviation[0, 0, 0], images[:, 0].std(), rtol=1e-5)
    assert deviation[1, 0, 0] == 1


def test_fingerprints_tell_data_apart() -> None:
    base = dataset([[1], [2], [3]], [0, 1, 2])
    same = dataset([[1], [2], [3]], [0, 1, 2])
    others = [dataset([[1], [3], [2]], [0, 1, 2]), dataset([[1], [2], [3]], [0, 1, 1])]
    prints = [fingerprint(d, row_hashes(d.inputs)) for d in (base, same, *others)]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3
