from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from flexhpc.data.dataset import Split, iterate_blocks, rows_per_block
from flexhpc.data.summary import compute_summary, moments
from tests.data.writers import load


@pytest.mark.parametrize("subset", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_moments_are_per_channel(dtype: type, subset: bool) -> None:
    rng = np.random.default_rng(0)
    images: NDArray[Any] = rng.integers(0, 256, (3_000, 3, 40, 40), dtype=np.uint8)
    images[:, 1] = 8
    if dtype is np.float32:
        images = images.astype(np.float32) / 256 - 0.25
    assert rows_per_block((3, 40, 40)) < 3_000, "several blocks"
    keep = rng.random(3_000) < 0.5 if subset else None
    used = images[keep] if keep is not None else images
    mean, deviation = moments(partial(iterate_blocks, images), keep)
    exact = used.astype(np.float64)
    np.testing.assert_allclose(mean[:, 0, 0], exact.mean(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(deviation[0, 0, 0], exact[:, 0].std(), rtol=1e-6)
    assert deviation[1, 0, 0] == 0


def test_moments_of_vectors_ignore_missing_values() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(3, 2, (400, 3)).astype(np.float32)
    values[rng.random((400, 3)) < 0.3] = np.nan
    values[:, 2] = np.nan
    keep = rng.random(400) < 0.5
    mean, deviation = moments(partial(iterate_blocks, values), keep)
    np.testing.assert_allclose(mean[:2], np.nanmean(values[keep, :2], axis=0), rtol=1e-6)
    np.testing.assert_allclose(deviation[:2], np.nanstd(values[keep, :2], axis=0), rtol=1e-6)
    assert (mean[2], deviation[2]) == (0, 0)


def test_fingerprint_depends_on_inputs_labels_and_classes() -> None:
    def fingerprint(inputs: list[float], labels: list[int], classes: int = 4) -> str:
        split = Split.from_arrays(np.array([inputs], np.float32).T, np.array(labels))
        return compute_summary(split, classes).fingerprint

    base = fingerprint([1, 2, 3], [0, 1, 2])
    assert fingerprint([1, 2, 3], [0, 1, 2]) == base
    changed = {
        fingerprint([1, 3, 2], [0, 1, 2]), fingerprint([1, 2, 3], [0, 1, 1]),
        fingerprint([1, 2, 3], [0, 1, 2], classes=5),
    }  # fmt: skip
    assert len(changed - {base}) == 3


def test_digits_equal_scikit_learn_and_have_a_stable_fingerprint() -> None:
    """With a different fingerprint, measured points could not be resumed."""
    samples, bunch = load("digits"), load_digits()
    assert samples.fingerprint == "aa954870c12a1d2bb5783578867bc43c"
    assert samples.inputs.rows.dtype == np.uint8
    np.testing.assert_array_equal(samples.inputs.rows[:, 0], bunch.images)
    np.testing.assert_array_equal(samples.labels, bunch.target)


def test_twins_are_all_samples_with_identical_inputs() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 256, (2_000, 1, 1, 2), dtype=np.uint8)
    summary = compute_summary(Split.from_arrays(inputs, np.zeros(2_000)), classes=2)
    codes = inputs.reshape(2_000, 2) @ np.array([256, 1])
    counts = np.bincount(codes)
    np.testing.assert_array_equal(summary.twins, np.flatnonzero(counts[codes] > 1))
    assert len(summary.twins) > 10
    for group in np.unique(summary.groups):
        members = summary.twins[summary.groups == group]
        assert len(set(codes[members])) == 1
        assert len(members) == counts[codes[members[0]]]
