"""Data structures for samples with their original labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
_VALUES_PER_BLOCK = 2**22


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Statistics of all samples in ``Source.train``; packed files store these statistics.

    Attributes:
        fingerprint: hash of the samples, in order, and of their original labels.
        mean, deviation: mean and standard deviation, float32, per channel (channels, 1, 1) or
            feature (features,); a constant channel or feature has deviation 0.
        twins: ids of the samples that are identical to another sample, int64 (m,).
        groups: for each twin, the index of its group of identical samples, int64 (m,).
    """

    fingerprint: str
    mean: Array
    deviation: Array
    twins: Ints
    groups: Ints


@dataclass(frozen=True, kw_only=True)
class Split:
    """The training or test samples of a source, in memory or read from files in blocks.

    Attributes:
        labels: original labels, int64 (n,), from 0 to ``Source.classes`` - 1; with
            ``Source.token_labels``, a number for each answer, which only serves to find conflicts.
        shape: shape of one sample: (channels, height, width), (features,) or (length,) for token
            ids.
        dtype: uint8, float32, or int64 for token ids; in vectors, NaN marks a missing value.
        blocks: function that returns an iterator over the samples in order, as arrays
            ``(k, *shape)``; every call starts at the first sample.
    """

    labels: Ints
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    blocks: Callable[[], Iterator[Array]]

    @classmethod
    def from_arrays(cls, inputs: Array, labels: Array) -> Split:
        """Create a split from arrays of samples (n, ...) and labels (n,)."""
        return cls(
            labels=labels.astype(np.int64, copy=False),
            shape=tuple(int(side) for side in inputs.shape[1:]),
            dtype=inputs.dtype,
            blocks=lambda: iter([inputs]),
        )

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.labels)

    def small_blocks(self) -> Iterator[Array]:
        """Yield the samples in order, in blocks of at most ``rows_per_block(shape)`` samples."""
        for block in self.blocks():
            yield from iterate_blocks(block)

    def gather(self) -> Array:
        """Return all samples as one array ``(n, *shape)``, without a copy if they are one block."""
        blocks = self.blocks()
        first = next(blocks)
        if len(first) == len(self):
            return first
        samples = np.empty((len(self), *self.shape), self.dtype)
        start = 0
        for block in chain([first], blocks):
            samples[start : start + len(block)] = block
            start += len(block)
        return samples


@dataclass(frozen=True, kw_only=True)
class Source:
    """The samples and classes of a data source, before labels are assigned for a point.

    Attributes:
        name: name of the source, for messages.
        classes: number of classes.
        train: the training samples, including samples that a point holds out as a test set.
        open_test: function that returns the samples of the source's test files. It returns None
            if the source has no test files. The default function returns None.
        coarse: super-class of each class, -1 if unknown, int64 (classes,); None if there are no
            super-classes.
        standardised_mask: bool mask of shape (features,): True for each feature to standardise;
            None if all features are standardised.
        summary: statistics of the training samples; None if they must be computed.
        class_names: names of the classes, in order; None if the classes have no names.
        token_labels: label of each token of each training sample, ``IGNORED`` for tokens that need
            not be predicted, int64 (n, length); None if each sample has one label.
    """

    name: str
    classes: int
    train: Split
    open_test: Callable[[], Split | None] = lambda: None
    coarse: Ints | None = None
    standardised_mask: Mask | None = None
    summary: Summary | None = None
    class_names: Sequence[str] | None = None
    token_labels: Ints | None = None

    def __post_init__(self) -> None:
        """Replace invalid Unicode characters in class names; names of folders can contain them."""
        if self.class_names is not None:
            names = tuple(name.encode(errors="replace").decode() for name in self.class_names)
            object.__setattr__(self, "class_names", names)


def rows_per_block(shape: tuple[int, ...]) -> int:
    """Return the number of samples in a block, which has about four million values.

    This number depends only on ``shape``, the shape of a sample, so that floating-point sums over
    blocks do not depend on how the samples are stored.
    """
    return max(1, _VALUES_PER_BLOCK // int(np.prod(shape, dtype=np.int64)))


def iterate_blocks(inputs: Array) -> Iterator[Array]:
    """Yield the rows of an array in order, in blocks of :func:`rows_per_block` rows."""
    step = rows_per_block(inputs.shape[1:])
    for start in range(0, len(inputs), step):
        yield inputs[start : start + step]
