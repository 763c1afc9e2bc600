"""Samples before a point labels them: where they come from, and what a data set is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
_VALUES_AT_ONCE = 2**22


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a pass over all samples tells, kept so that it is made once.

    Attributes:
        fingerprint: identifies the samples, their order and original labels.
        mean, deviation: float32, per channel (channels, 1, 1) or feature (features,); the
            deviation of a constant one is 0.
        twins: ids of samples that have an identical twin, int64 (m,).
        groups: which of them are identical: a number for each, int64 (m,).
    """

    fingerprint: str
    mean: Array
    deviation: Array
    twins: Ints
    groups: Ints


@dataclass(frozen=True, kw_only=True)
class Part:
    """The training or the test samples of a source, which need not be in memory.

    Attributes:
        labels: original labels, int64 (n,).
        shape: of one sample: (channels, height, width) or (features,).
        dtype: uint8 for images, float32 for vectors.
        blocks: returns the samples in order, as arrays ``(k, *shape)``; may be called again.
    """

    labels: Ints
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    blocks: Callable[[], Iterator[Array]]

    @classmethod
    def of(cls, inputs: Array, labels: Array) -> Part:
        """Return the part that an array in memory (n, ...) is."""
        return cls(
            labels=labels.astype(np.int64, copy=False),
            shape=tuple(int(side) for side in inputs.shape[1:]),
            dtype=inputs.dtype,
            blocks=lambda: iter([inputs]),
        )

    def gather(self) -> Array:
        """Return all samples as one array ``(n, *shape)``, without a copy where it is one."""
        blocks = self.blocks()
        first = next(blocks)
        if len(first) == len(self.labels):
            return first
        joined = np.empty((len(self.labels), *self.shape), self.dtype)
        joined[: len(first)] = first
        at = len(first)
        for block in blocks:
            joined[at : at + len(block)] = block
            at += len(block)
        return joined


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where samples are read from.

    Attributes:
        name: for messages.
        classes: number of classes.
        train: the training samples.
        test: returns those of the source's own test files, or None if it has none.
        coarse: super-class of each class, -1 where unknown, int64 (classes,); None if there are
            none.
        scaled: features that are standardised, bool (features,); None: all.
        summary: of the training samples, where it is known already.
        class_names: what the classes are called, in their order; None where they are numbers.
    """

    name: str
    classes: int
    train: Part
    test: Callable[[], Part | None]
    coarse: Ints | None = None
    scaled: Mask | None = None
    summary: Summary | None = None
    class_names: Sequence[str] | None = None

    def __post_init__(self) -> None:
        """Make names text that can be written: those of folders need not be Unicode."""
        if self.class_names is not None:
            names = tuple(name.encode(errors="replace").decode() for name in self.class_names)
            object.__setattr__(self, "class_names", names)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A whole training set; a sample's row is its **global sample id**.

    Attributes:
        name: where it came from, for messages.
        inputs: uint8 images (n, channels, height, width), or float32 vectors (n, features), in
            which NaN is a missing value; in memory or memory-mapped.
        labels: original labels, int64 (n,), from 0 to classes - 1.
        classes: number of classes.
        coarse, scaled, class_names: see :class:`Source`.
    """

    name: str
    inputs: Array
    labels: Ints
    classes: int
    coarse: Ints | None = None
    scaled: Mask | None = None
    class_names: Sequence[str] | None = None

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(int(side) for side in self.inputs.shape[1:])


def no_test() -> None:
    """Say that a source has no test files of its own."""


def rows_at_once(shape: tuple[int, ...]) -> int:
    """Return how many samples of a shape to take at once: some four million values.

    It depends on the shape alone, so that sums of floats come out the same wherever samples lie.
    """
    return max(1, _VALUES_AT_ONCE // int(np.prod(shape, dtype=np.int64)))


def in_blocks(inputs: Array) -> Iterator[Array]:
    """Yield consecutive rows of an array, :func:`rows_at_once` at a time."""
    step = rows_at_once(inputs.shape[1:])
    for at in range(0, len(inputs), step):
        yield inputs[at : at + step]
