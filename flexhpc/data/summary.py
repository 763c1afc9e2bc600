"""Statistics over all samples: moments, identical samples, and a fingerprint of the content."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexhpc.data.dataset import Array, Dataset, Ints, Mask, Summary, in_blocks

Blocks = Callable[[], Iterator[Array]]


def summarise(dataset: Dataset) -> Summary:
    """Summarise a data set with two or three passes over its samples."""
    blocks = partial(in_blocks, dataset.inputs)
    return summary_of(blocks, dataset.inputs.dtype, dataset.shape, dataset.labels, dataset.classes)


def summary_of(
    blocks: Blocks, dtype: np.dtype[Any], shape: tuple[int, ...], labels: Ints, classes: int
) -> Summary:
    """Summarise samples in blocks, which are split as in :func:`flexhpc.data.dataset.in_blocks`.

    The fingerprint is 32 hexadecimal digits of a SHA-256 over shape, samples and original labels.
    """
    hashes = row_hashes(blocks)
    digest = hashlib.sha256()
    digest.update(f"{dtype} {(len(labels), *shape)} {classes}".encode())
    digest.update(hashes.tobytes())
    digest.update(labels.tobytes())
    ids, groups = find_twins(hashes)
    mean, deviation = moments(blocks)
    return Summary(
        fingerprint=digest.hexdigest()[:32],
        mean=mean,
        deviation=deviation,
        twins=ids,
        groups=groups,
    )


def row_hashes(blocks: Blocks) -> NDArray[np.void]:
    """Return a 128-bit BLAKE2 hash of the bytes of every sample: shape (n,), dtype V16."""
    digests = bytearray()
    for block in blocks():
        for row in np.ascontiguousarray(block).reshape(len(block), -1):
            digests += hashlib.blake2b(row.tobytes(), digest_size=16).digest()
    return np.frombuffer(bytes(digests), dtype="V16")


def find_twins(hashes: NDArray[np.void]) -> tuple[Ints, Ints]:
    """Return the ids of all samples that have an identical twin, and the group number of each.

    Both int64 (m,); ids are ascending. Only hashes with equal first halves are compared in full.
    """
    halves = hashes.view(np.uint64)[::2]
    _, group, sizes = np.unique(halves, return_inverse=True, return_counts=True)
    close = np.flatnonzero(sizes[group] > 1)
    _, group, sizes = np.unique(hashes[close], return_inverse=True, return_counts=True)
    shared = sizes[group] > 1
    _, groups = np.unique(group[shared], return_inverse=True)
    return close[shared].astype(np.int64), groups.astype(np.int64)


def moments(blocks: Blocks, keep: Mask | None = None) -> tuple[Array, Array]:
    """Return mean and standard deviation over the samples, or those in ``keep``, a mask (n,).

    Per channel for images (channels, 1, 1); per feature for vectors (features,), where missing
    values (NaN) are ignored; float32. The deviation of a constant feature is 0.
    """

    def kept() -> Iterator[Array]:
        start = 0
        for block in blocks():
            chosen = block if keep is None else block[keep[start : start + len(block)]]
            start += len(block)
            if len(chosen):
                yield chosen

    mean, deviation = (_channel_moments if next(kept()).ndim == 4 else _vector_moments)(kept)
    return mean.astype(np.float32), deviation.astype(np.float32)


def moments_per_pixel(blocks: Blocks, keep: Mask) -> tuple[Array, Array]:
    """Return mean and standard deviation of every pixel over the images in ``keep``, a mask (n,).

    Both float32 (channels, height, width); the deviation of a constant pixel is 0.
    """
    start, count = 0, int(keep.sum())
    total: Array = np.zeros(1)
    squares: Array = np.zeros(1)
    for block in blocks():
        chosen = block[keep[start : start + len(block)]].astype(np.float64)
        start += len(block)
        total, squares = total + chosen.sum(axis=0), squares + (chosen**2).sum(axis=0)
    mean = total / count
    spread = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return mean.astype(np.float32), spread.astype(np.float32)


def pool_moments(mean: Array, deviation: Array) -> tuple[Array, Array]:
    """Combine the moments of all channels (features) into common moments of the same shapes."""
    whole = mean.astype(np.float64).mean()
    spread = np.sqrt((deviation.astype(np.float64) ** 2 + (mean - whole) ** 2).mean())
    return np.full_like(mean, whole), np.full_like(deviation, spread)


def _channel_moments(blocks: Blocks) -> tuple[Array, Array]:
    """Sum Python integers, which is exact and therefore independent of the blocks."""
    pixels, axes = 0, (0, 2, 3)
    sums: Array = np.zeros(1, dtype=object)
    squares: Array = np.zeros(1, dtype=object)
    for block in blocks():
        sums = sums + block.sum(axis=axes, dtype=np.uint64).astype(object)
        squared = block.astype(np.uint16) ** 2
        squares = squares + squared.sum(axis=axes, dtype=np.uint64).astype(object)
        pixels += block.size // block.shape[1]
    mean = [s / pixels for s in sums]
    spread = [
        math.sqrt((pixels * q - s * s) / pixels**2) for s, q in zip(sums, squares, strict=True)
    ]
    return np.array(mean).reshape(-1, 1, 1), np.array(spread).reshape(-1, 1, 1)


def _vector_moments(blocks: Blocks) -> tuple[Array, Array]:
    count: Array = np.zeros(1)
    total: Array = np.zeros(1)
    for block in blocks():
        seen = ~np.isnan(block)
        count = count + seen.sum(axis=0)
        total = total + np.where(seen, block, 0).sum(axis=0, dtype=np.float64)
    count = np.maximum(count, 1)
    mean = total / count
    squares: Array = np.zeros(1)
    for block in blocks():
        centred = np.where(np.isnan(block), 0, block - mean)
        squares = squares + (centred**2).sum(axis=0)
    return mean, np.sqrt(squares / count)
