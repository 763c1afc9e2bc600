"""Load the samples that the ``data`` section of a point specifies."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from flexhpc.config.sections.base import LIMIT, LOCATION
from flexhpc.config.sections.data import IGNORED, Data, Tokens
from flexhpc.data.dataset import Array, Ints, Mask, Source, Split, Summary
from flexhpc.data.inputs import TEST, TRAIN, Inputs
from flexhpc.data.labelling import (
    draw_labels,
    find_conflicts,
    find_equal_prompts,
    merge_labels,
    training_mask,
)
from flexhpc.data.sources import open_source
from flexhpc.data.standard_files import default_folder_settings
from flexhpc.data.summary import compute_summary, moments, moments_per_pixel, pool_moments
from flexhpc.errors import PointError
from flexhpc.seeds import derive_seed


@dataclass(frozen=True, kw_only=True)
class Samples:
    """The samples from which the probes of one point are drawn.

    Attributes:
        source: all samples with their original labels, including held-out samples. The **global
            sample id** of a sample is its row in ``source.train``.
        labels: labels of the point, int64 (n,); unused if the tokens of samples have labels.
        classes: number of classes of the labels.
        class_names: names of the classes; None if the classes of the labels are not the classes of
            the data set, or have no names.
        inputs: network inputs of all samples.
        pool: sorted global ids of the samples that may be drawn, without held-out samples and
            without samples that ``data.conflicts`` drops.
        n_limit: maximum number of samples of a probe.
        conflicts: number of groups of identical inputs with different labels (or of identical
            prompts with different answers), counted without held-out samples and before
            ``data.conflicts`` drops samples.
        unfittable: number of samples whose label is not the majority label of the samples with the
            same input, counted among the same samples as ``conflicts``. At least this many samples
            cannot be fitted; see :func:`flexhpc.data.labelling.find_conflicts`.
        conflict_groups: number of groups of identical inputs with different labels in the pool, for
            each composition; see :func:`flexhpc.data.labelling.find_conflicts`.
        fingerprint: hash of the content of the data set.
    """

    source: Source
    labels: Ints
    classes: int
    class_names: Sequence[str] | None
    inputs: Inputs
    pool: Ints
    n_limit: int
    conflicts: int
    unfittable: int
    conflict_groups: list[tuple[tuple[int, ...], int]]
    fingerprint: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.source.train.shape

    def select_inputs(self, ids: Ints) -> Array:
        """Return the network inputs of the samples ``ids``, float32 (len(ids), ...)."""
        return self.inputs.select(ids)


@dataclass(frozen=True, kw_only=True)
class TestSet:
    """The test set of a point.

    Attributes:
        labels: original labels, merged as in the training set, int64 (m,).
        inputs: inputs, standardised with the statistics of the training set.
        rows: index of each test sample in ``inputs.rows``, int64 (m,).
    """

    labels: Ints
    inputs: Inputs
    rows: Ints

    def select_inputs(self, ids: Ints) -> Array:
        """Return the network inputs of the test samples ``ids``, float32 (len(ids), ...).

        Ids are positions in the test set, from 0 to ``len(self.labels) - 1``.
        """
        return self.inputs.select(self.rows[ids])


@dataclass(frozen=True, kw_only=True)
class _LoadedSource:
    """A loaded source.

    Attributes:
        source: the source; all its training samples are one block.
        summary: statistics of the training samples. Mean and deviation are those of the samples
            that are not held out.
        is_train: mask of the samples that are not held out as a test set, bool (n,).
    """

    source: Source
    summary: Summary
    is_train: Mask

    def make_inputs(self, data: Data, seed: int, rows: Array, split: int) -> Inputs:
        """Create :class:`Inputs` from ``rows``, an array of unstandardised samples.

        ``split`` is TRAIN or TEST. The key ``data.standardise`` determines the mean and standard
        deviation with which inputs are standardised. A standard deviation of 0 is replaced by 1.
        """
        train_mean, train_deviation = self.summary.mean, self.summary.deviation
        mean, deviation = train_mean, train_deviation
        if data.standardise == "pixel":
            mean, deviation = moments_per_pixel(self.source.train.small_blocks, self.is_train)
        elif data.standardise == "set":
            mean, deviation = pool_moments(mean, deviation)
        elif data.standardise == "none":
            mean = np.zeros_like(mean)
            is_image = len(self.source.train.shape) == 3 and self.source.train.dtype == np.uint8
            deviation = np.full_like(deviation, 255 if is_image else 1)
        deviation = np.where(deviation == 0, np.float32(1), deviation)
        if (standardised_mask := self.source.standardised_mask) is not None:
            mean = np.where(standardised_mask, mean, np.float32(0))
            deviation = np.where(standardised_mask, deviation, np.float32(1))
        return Inputs(
            rows=rows,
            mean=mean,
            deviation=deviation,
            centre=(train_mean - mean) / deviation,
            spread=train_deviation / deviation,
            kind=data.inputs,
            seed=derive_seed(seed, "inputs"),
            split=split,
        )


def load_samples(data: Data, seed: int) -> Samples:
    """Load the samples and labels of a point.

    The two most recently used data sets are cached in the process.

    Raises:
        PointError: the data is missing, unreadable or has the wrong shape, or its labels cannot be
            assigned as requested.
    """
    loaded = _load_source(data, seed)
    if loaded.source.token_labels is not None:
        for key in data.keys_of_labelled_samples():
            raise PointError(f"data.{key}: has no effect with one label per token; remove it")
    train_ids = np.flatnonzero(loaded.is_train)
    labels, classes, unmerged = draw_labels(data, loaded.source, train_ids, seed)
    pool, unfittable = train_ids, train_ids[:0]
    conflict_groups: list[tuple[tuple[int, ...], int]] = []
    if data.inputs in ("original", "permuted"):  # other inputs are all distinct
        conflict_groups, unfittable = find_conflicts(loaded.summary, labels, train_ids)
    conflicts = sum(count for _, count in conflict_groups)
    if data.conflicts == "drop":
        pool, conflict_groups = np.setdiff1d(pool, unfittable, assume_unique=True), []
    return Samples(
        source=loaded.source,
        labels=labels,
        classes=classes,
        class_names=loaded.source.class_names if unmerged else None,
        inputs=loaded.make_inputs(data, seed, loaded.source.train.gather(), TRAIN),
        pool=pool,
        n_limit=min(len(pool), data.n_max or len(pool)),
        conflicts=conflicts,
        unfittable=len(unfittable),
        conflict_groups=conflict_groups,
        fingerprint=loaded.summary.fingerprint,
    )


def load_test_set(data: Data, seed: int) -> TestSet:
    """Load the test set of a point.

    It consists of the samples held out by ``data.test_fraction``. If this key is not set, it
    consists of the samples in the source's test files. With ``inputs: permuted``, the permutation
    of the pixels is the same as in training.

    Raises:
        PointError: there is no test set, a test file is unreadable, or the test samples do not have
            the shape or the classes of the training samples.
    """
    loaded = _load_source(data, seed)
    source, train = loaded.source, loaded.source.train
    if not loaded.is_train.all():
        rows = np.flatnonzero(~loaded.is_train)
        labels = train.labels[rows]
        inputs = loaded.make_inputs(data, seed, train.gather(), TRAIN)
    else:
        split = source.open_test()
        if split is None:
            raise PointError(f"data.source: {source.name} has no test set; give data.test_fraction")
        if split.shape != train.shape or split.labels.max(initial=0) >= source.classes:
            raise PointError(
                f"{source.name}: test samples do not have the shape or the classes of the training "
                f"samples (shapes {split.shape} and {train.shape}); replace the test set"
            )
        rows, labels = np.arange(len(split), dtype=np.int64), split.labels
        inputs = loaded.make_inputs(data, seed, split.gather(), TEST)
    merged, _ = merge_labels(data, source, labels, seed)
    return TestSet(labels=merged.copy(), inputs=inputs, rows=rows)  # torch needs writable labels


def _load_source(data: Data, seed: int) -> _LoadedSource:
    marked = (*data.fields_with_mark(LOCATION), *data.fields_with_mark(LIMIT))
    keys = {"test_fraction", *data.reading_keys(), *marked}
    section = data.model_dump_json(include=keys, exclude_none=True)
    # The default folders are part of the cache key, because a notebook may change them.
    return _load_source_cached(
        type(data), section, seed if data.seeded else 0, default_folder_settings()
    )


@lru_cache(maxsize=2)
def _load_source_cached(
    variant: type[Data], section: str, seed: int, folders: tuple[str | None, ...]
) -> _LoadedSource:
    """Load a source; cache the two most recently used sources.

    The section is passed as JSON text, because sections with lists cannot be hashed. ``folders`` is
    used only as part of the cache key.
    """
    data = variant.model_validate_json(section)
    source = open_source(data, seed)
    train = Split.from_arrays(source.train.gather(), source.train.labels)
    summary = source.summary or compute_summary(train, source.classes)
    if source.token_labels is not None:
        if not data.seeded:
            content = summary.fingerprint.encode() + source.token_labels.tobytes()
            summary = replace(summary, fingerprint=hashlib.sha256(content).hexdigest()[:32])
        ids, labels = train.gather(), source.token_labels.copy()
        if isinstance(data, Tokens):
            labels[:, : data.prompt_length] = IGNORED
        twins, groups, answers = find_equal_prompts(ids, labels)
        train = Split.from_arrays(ids, answers)
        summary = replace(summary, twins=twins, groups=groups)
    is_train = training_mask(len(train), data.test_fraction)
    if not is_train.all():
        mean, deviation = moments(train.small_blocks, is_train)
        summary = replace(summary, mean=mean, deviation=deviation)
    return _LoadedSource(source=replace(source, train=train), summary=summary, is_train=is_train)
