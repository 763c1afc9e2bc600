"""Compute a data set's fingerprint, mean and standard deviation, and find identical samples."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from flexhpc.data.dataset import Array, Ints, Mask, Split, Summary

Blocks = Callable[[], Iterator[Array]]


def compute_summary(split: Split, classes: int) -> Summary:
    """Compute the moments and fingerprint of a training set, and find its identical samples.

    Uint8 images are read twice, other samples three times. The fingerprint is a SHA-256 hash of
    dtype, shape, number of classes, samples and original labels, truncated to 32 hexadecimal
    digits.
    """
    hashes = row_hashes(split.small_blocks)
    digest = hashlib.sha256()
    digest.update(f"{split.dtype} {(len(split), *split.shape)} {classes}".encode())
    digest.update(hashes.tobytes())
    digest.update(split.labels.tobytes())
    ids, groups = find_twins(hashes)
    mean, deviation = moments(split.small_blocks)
    return Summary(
        fingerprint=digest.hexdigest()[:32], mean=mean, deviation=deviation, twins=ids,
        groups=groups,
    )  # fmt: skip


def row_hashes(blocks: Blocks) -> NDArray[np.void]:
    """Return a 128-bit BLAKE2 hash of the bytes of every sample: shape (n,), dtype V16."""
    digests = bytearray()
    for block in blocks():
        for row in np.ascontiguousarray(block).reshape(len(block), -1):
            digests += hashlib.blake2b(row.tobytes(), digest_size=16).digest()
    return np.frombuffer(bytes(digests), dtype="V16")


def find_twins(hashes: NDArray[np.void]) -> tuple[Ints, Ints]:
    """Return the ids of all samples that are identical to another sample, and their group numbers.

    Both arrays are int64 (m,), and the ids are ascending. Identical samples have the same group
    number, counted from 0. For speed, hashes are compared in full only if their first halves are
    equal.
    """
    halves = hashes.view(np.uint64)[::2]
    _, group, sizes = np.unique(halves, return_inverse=True, return_counts=True)
    close = np.flatnonzero(sizes[group] > 1)
    _, group, sizes = np.unique(hashes[close], return_inverse=True, return_counts=True)
    shared = sizes[group] > 1
    _, groups = np.unique(group[shared], return_inverse=True)
    return close[shared].astype(np.int64), groups.astype(np.int64)


def moments(blocks: Blocks, keep: Mask | None = None) -> tuple[Array, Array]:
    """Return the mean and standard deviation of every channel or feature.

    They are computed over all samples, or over the samples that the mask ``keep`` (n,) selects.
    Both are float32, (channels, 1, 1) for images and (features,) for vectors. NaN in vectors is
    ignored. A constant channel or feature has deviation 0.
    """

    def selected_blocks() -> Iterator[Array]:
        start = 0
        for block in blocks():
            selected = block if keep is None else block[keep[start : start + len(block)]]
            start += len(block)
            if len(selected):
                yield selected

    def pixel_blocks() -> Iterator[Array]:
        for block in selected_blocks():
            yield np.moveaxis(block, 1, -1).reshape(-1, block.shape[1])

    first = next(selected_blocks())
    if first.ndim == 4 and first.dtype == np.uint8:
        mean, deviation = _channel_moments(selected_blocks)
    elif first.ndim == 4:
        mean, deviation = (m.reshape(-1, 1, 1) for m in _vector_moments(pixel_blocks))
    else:
        mean, deviation = _vector_moments(selected_blocks)
    return mean.astype(np.float32), deviation.astype(np.float32)


def moments_per_pixel(blocks: Blocks, keep: Mask) -> tuple[Array, Array]:
    """Return the mean and standard deviation of every pixel.

    They are computed over the images that the mask ``keep`` (n,) selects. Both are float32
    (channels, height, width); a constant pixel has deviation 0.
    """
    start, count = 0, int(keep.sum())
    total: Array = np.zeros(1)
    squares: Array = np.zeros(1)
    for block in blocks():
        selected = block[keep[start : start + len(block)]].astype(np.float64)
        start += len(block)
        total, squares = total + selected.sum(axis=0), squares + (selected**2).sum(axis=0)
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return mean.astype(np.float32), deviation.astype(np.float32)


def pool_moments(mean: Array, deviation: Array) -> tuple[Array, Array]:
    """Return the mean and standard deviation pooled over all channels or features.

    The shapes do not change; all values of a returned array are equal.
    """
    common_mean = mean.astype(np.float64).mean()
    variance = (deviation.astype(np.float64) ** 2 + (mean - common_mean) ** 2).mean()
    return np.full_like(mean, common_mean), np.full_like(deviation, np.sqrt(variance))


def _channel_moments(blocks: Blocks) -> tuple[Array, Array]:
    """Return the mean and standard deviation of each channel of uint8 images.

    The sums are exact, so that the moments do not depend on the order of the images.
    """
    pixels, axes = 0, (0, 2, 3)
    sums: Array = np.zeros(1, dtype=object)
    squares: Array = np.zeros(1, dtype=object)
    for block in blocks():
        sums = sums + block.sum(axis=axes, dtype=np.uint64).astype(object)
        squared = block.astype(np.uint16) ** 2
        squares = squares + squared.sum(axis=axes, dtype=np.uint64).astype(object)
        pixels += block.size // block.shape[1]
    mean = [s / pixels for s in sums]
    deviation = [
        math.sqrt((pixels * q - s * s) / pixels**2) for s, q in zip(sums, squares, strict=True)
    ]
    return np.array(mean).reshape(-1, 1, 1), np.array(deviation).reshape(-1, 1, 1)


def _vector_moments(blocks: Blocks) -> tuple[Array, Array]:
    """Return the mean and standard deviation of each feature of vectors; ignore NaN."""
    count: Array = np.zeros(1)
    total: Array = np.zeros(1)
    for block in blocks():
        is_present = ~np.isnan(block)
        count = count + is_present.sum(axis=0)
        total = total + np.where(is_present, block, 0).sum(axis=0, dtype=np.float64)
    count = np.maximum(count, 1)
    mean = total / count
    squares: Array = np.zeros(1)
    for block in blocks():
        centred = np.where(np.isnan(block), 0, block - mean)
        squares = squares + (centred**2).sum(axis=0)
    return mean, np.sqrt(squares / count)
