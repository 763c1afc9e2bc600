"""Assign the labels of a point, find conflicts (identical inputs with different labels), and draw
subsets."""

from __future__ import annotations

from collections import Counter

import numpy as np

from flexhpc.config.sections.data import IGNORED, PADDING, Data
from flexhpc.data.dataset import Array, Ints, Mask, Source, Summary
from flexhpc.data.summary import find_twins, row_hashes
from flexhpc.errors import PointError
from flexhpc.seeds import derive_seed

_MERGE = 1
_HELD_OUT_SEED = 1_402


def merge_labels(data: Data, source: Source, labels: Ints, seed: int) -> tuple[Ints, int]:
    """Merge classes as the ``data`` section requires.

    Args:
        data: the ``data`` section.
        source: the data set.
        labels: original labels of some samples of the data set.
        seed: seed of the point.

    Returns:
        The merged labels and their number of classes. If the section does not merge classes, these
        are the original labels and the number of classes of the data set.

    Raises:
        PointError: the classes cannot be merged as requested, or the super-class of a label is
            unknown.
    """
    mapping = _merged_classes(data, source, seed)
    if mapping is None:
        return labels, source.classes
    merged = mapping[labels]
    if len(merged) and merged.min() < 0:
        unmapped = int(labels[np.argmin(merged)])
        raise PointError(
            f"data.merge: the super-class of class {unmapped} is unknown, because the training set "
            "has no samples of this class"
        )
    return merged, int(mapping.max()) + 1


def _merged_classes(data: Data, source: Source, seed: int) -> Ints | None:
    """Return the merged class of each class, int64 (classes,); None if classes are not merged."""
    classes = source.classes
    if data.class_map is not None:
        if len(data.class_map) != classes:
            raise PointError(
                f"data.class_map: has {len(data.class_map)} entries, but the data set has "
                f"{classes} classes; give one entry per class"
            )
        return np.array(data.class_map, dtype=np.int64)
    if data.merge == "coarse":
        if source.coarse is None:
            raise PointError(
                f"data.merge: this copy of {data.source} has no super-classes; give data.class_map"
            )
        return source.coarse
    if data.merge == "random" and data.classes is not None:
        if data.classes > classes:
            raise PointError(
                f"data.classes: {data.classes} is more than the {classes} classes of the data set, "
                "and merging cannot add classes"
            )
        merged = np.empty(classes, dtype=np.int64)
        order = np.random.default_rng(derive_seed(seed, "labels", _MERGE)).permutation(classes)
        merged[order] = np.arange(classes) % data.classes
        return merged
    return None


def draw_labels(data: Data, source: Source, train: Ints, seed: int) -> tuple[Ints, int, bool]:
    """Return the labels of a point: original, merged, random or corrupted.

    A sample has the same label in every probe of a point.

    Args:
        data: the ``data`` section.
        source: the samples and their original labels.
        train: ids of the samples that are not held out; only these samples can be corrupted.
        seed: seed of the point.

    Returns:
        The labels of all samples, int64 (n,); their number of classes; and whether these classes
        are the classes of the data set.

    Raises:
        PointError: the classes cannot be merged as requested, or ``data.corruption`` rounds to 0
            samples.
    """
    rng = np.random.default_rng(derive_seed(seed, "labels"))
    if data.labels == "random":
        classes = data.classes or source.classes
        labels = rng.integers(0, classes, len(source.train), dtype=np.int64)
        return labels, classes, classes == source.classes
    labels, classes = merge_labels(data, source, source.train.labels, seed)
    if data.labels == "corrupted" and data.corruption is not None:
        count = round(data.corruption * len(train))
        if not count:
            raise PointError(
                f"data.corruption: {data.corruption:g} of {len(train)} training samples rounds to "
                f"0 samples; give at least {1 / len(train):.2g}"
            )
        corrupted = train[rng.permutation(len(train))[:count]]
        labels = labels.copy()
        labels[corrupted] = (labels[corrupted] + rng.integers(1, classes, count)) % classes
    return labels, classes, data.merge is None and data.class_map is None


def find_conflicts(
    summary: Summary, labels: Ints, pool: Ints
) -> tuple[list[tuple[tuple[int, ...], int]], Ints]:
    """Find identical inputs with different labels in a pool of samples.

    Args:
        summary: statistics of the data set, which include the groups of identical samples.
        labels: one label per sample.
        pool: sorted sample ids to consider.

    Returns:
        Two values:

        - Sorted pairs (composition, number of groups with this composition) of the groups of
          identical inputs with different labels. The composition of a group lists the number of
          samples with each label, in descending order. ``[((2, 1), 30)]`` means 30 groups of three
          samples, two of which have the same label. Compositions do not name the labels, because
          the probability of drawing a conflict does not depend on them.
        - The ids of the samples in these groups whose label is not the majority label of their
          group. If several labels are most frequent, the majority label is the smallest of them. If
          the samples with these ids are dropped, identical inputs have the same label.
    """
    inside = np.isin(summary.twins, pool, assume_unique=True)
    ids, group = summary.twins[inside], summary.groups[inside]
    if not len(ids):
        return [], ids
    pairs, counts = np.unique(np.stack([group, labels[ids]]), axis=1, return_counts=True)
    order = np.lexsort((pairs[1], -counts, pairs[0]))
    pairs, counts = pairs[:, order], counts[order]  # per group, the majority label is first
    groups, starts = np.unique(pairs[0], return_index=True)
    majority = pairs[1, starts][np.searchsorted(groups, group)]
    compositions = Counter(tuple(part.tolist()) for part in np.split(counts, starts[1:]))
    conflicts = sorted((sizes, count) for sizes, count in compositions.items() if len(sizes) > 1)
    return conflicts, ids[labels[ids] != majority]


def find_equal_prompts(ids: Array, labels: Ints) -> tuple[Ints, Ints, Ints]:
    """Find sequences with the same prompt, and number their answers.

    The prompt of a sequence consists of the tokens before its first label. Its answer consists of
    this label and the following labels, up to the first token without a label. Answers to the same
    prompt are compared up to the end of the shortest of them, because a network can fit an answer
    and its continuation.

    Args:
        ids: token ids, (n, length).
        labels: labels of the tokens, ``IGNORED`` for tokens that need not be predicted, int64 (n,
            length); each sequence has a label.

    Returns:
        ids and groups of the sequences whose prompt is not unique, as in
        :func:`flexhpc.data.summary.find_twins`; and a number for each sequence, int64 (n,), which
        differs between two sequences with the same prompt if a network cannot fit both.
    """
    positions, has_label = np.arange(ids.shape[1]), labels != IGNORED
    starts = has_label.argmax(axis=1)[:, None]
    prompts = np.where(positions < starts, ids, PADDING)
    twins, groups = find_twins(row_hashes(lambda: iter([prompts])))
    answers = np.zeros(len(ids), dtype=np.int64)
    if len(twins):
        ends = np.where((positions < starts) | has_label, len(positions), positions)[twins].min(1)
        shortest = np.full(groups.max() + 1, len(positions))
        np.minimum.at(shortest, groups, ends)
        compared = np.where(positions < shortest[groups, None], labels[twins], IGNORED)
        _, numbers = np.unique(compared, axis=0, return_inverse=True)
        answers[twins] = numbers.reshape(-1)
    return twins, groups, answers


def training_mask(count: int, test_fraction: float) -> Mask:
    """Return the mask of the samples that are not held out as a test set, bool (count,).

    The mask does not depend on the seed of a point.

    Raises:
        PointError: no sample, or every sample, would be held out.
    """
    mask = np.ones(count, dtype=np.bool_)
    if test_fraction > 0:
        size = round(count * test_fraction)
        if not 0 < size < count:
            missing, change = ("training", "smaller") if size else ("test", "larger")
            raise PointError(
                f"data.test_fraction: {test_fraction:g} of {count} samples rounds to {size} "
                f"samples, which leaves no {missing} samples; give a {change} fraction"
            )
        mask[np.random.default_rng(_HELD_OUT_SEED).permutation(count)[:size]] = False
    return mask


def draw_subset(pool: Ints, n: int, seed: int) -> Ints:
    """Draw ``n`` distinct global sample ids from ``pool``, sorted, int64 (n,).

    With the same seed, a larger subset contains every smaller one, because all subsets are prefixes
    of one permutation. Different seeds give independent subsets.
    """
    rng = np.random.default_rng(seed)
    return np.sort(pool[rng.permutation(len(pool))[:n]])
