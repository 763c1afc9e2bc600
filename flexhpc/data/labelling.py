"""Labels of a point, conflicts among them, and the subsets that probes draw."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flexhpc.data.dataset import Dataset, Ints
from flexhpc.seeds import derive


def draw_labels(dataset: Dataset, kind: str, seed: int) -> Ints:
    """Return the labels of one point, int64 (n,): ``original``, or ``random`` uniform per sample.

    Random labels belong to the sample, not to the probe: every probe of a point sees the same.
    """
    if kind == "original":
        return dataset.labels
    rng = np.random.default_rng(derive(seed, "labels"))
    return rng.integers(0, dataset.classes, len(dataset), dtype=np.int64)


def conflicting(hashes: NDArray[np.void], labels: Ints) -> tuple[int, Ints]:
    """Find identical inputs with different labels.

    Args:
        hashes: one hash per sample.
        labels: one label per sample.

    Returns:
        The number of groups of identical inputs that disagree, and the sample ids that stand in
        the way of a perfect fit: all but the majority label of each such group (ties: the smallest
        label wins).
    """
    _, group = np.unique(hashes, return_inverse=True)
    pairs, counts = np.unique(np.stack([group, labels]), axis=1, return_counts=True)
    order = np.lexsort((pairs[1], -counts, pairs[0]))
    groups, first = np.unique(pairs[0][order], return_index=True)
    majority = np.empty(len(groups), dtype=np.int64)
    majority[groups] = pairs[1][order][first]
    losers = np.flatnonzero(labels != majority[group])
    return len(np.unique(group[losers])), losers.astype(np.int64)


def draw_subset(pool: Ints, n: int, seed: int) -> Ints:
    """Return ``n`` distinct global sample ids from ``pool``, sorted, int64 (n,).

    For one seed, subsets of growing n are prefixes of one permutation; a fresh subset comes from a
    fresh seed.
    """
    rng = np.random.default_rng(seed)
    return np.sort(pool[rng.permutation(len(pool))[:n]])
