"""A training set in memory, and the identity of its content."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Ints = NDArray[np.int64]
_ROWS_AT_ONCE = 8_192


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A whole training set; a sample's row is its **global sample id**.

    Attributes:
        name: where it came from, for messages.
        inputs: uint8 images (n, channels, height, width), or float32 vectors (n, features).
        labels: original labels, int64 (n,), from 0 to classes - 1.
        classes: number of classes.
        standardise: whether inputs are to be standardised before training.
    """

    name: str
    inputs: Array
    labels: Ints
    classes: int
    standardise: bool = True

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(int(side) for side in self.inputs.shape[1:])


def row_hashes(inputs: Array) -> NDArray[np.void]:
    """Return a 128-bit BLAKE2 hash of every sample's bytes: shape (n,), dtype V16."""
    flat = np.ascontiguousarray(inputs).reshape(len(inputs), -1)
    digests = bytearray()
    for row in flat:
        digests += hashlib.blake2b(row.tobytes(), digest_size=16).digest()
    return np.frombuffer(bytes(digests), dtype="V16")


def fingerprint(dataset: Dataset, hashes: NDArray[np.void]) -> str:
    """Return 32 hexadecimal digits that identify the samples, their order and original labels."""
    digest = hashlib.sha256()
    digest.update(f"{dataset.inputs.dtype} {dataset.inputs.shape} {dataset.classes}".encode())
    digest.update(hashes.tobytes())
    digest.update(dataset.labels.tobytes())
    return digest.hexdigest()[:32]


def moments(dataset: Dataset) -> tuple[Array, Array]:
    """Return mean and standard deviation over the whole training set.

    Per channel for images (channels, 1, 1), per feature for vectors (features,); float32. A
    constant feature has deviation 1, so that it becomes 0. Summed in float64 in chunks.
    """
    inputs = dataset.inputs
    axes = (0, 2, 3) if inputs.ndim == 4 else (0,)
    count = inputs.size // inputs.shape[1]
    total = np.zeros(inputs.shape[1])
    for at in range(0, len(inputs), _ROWS_AT_ONCE):
        total += inputs[at : at + _ROWS_AT_ONCE].astype(np.float64).sum(axis=axes)
    mean = total / count
    shape = (-1, 1, 1) if inputs.ndim == 4 else (-1,)
    squares = np.zeros(inputs.shape[1])
    for at in range(0, len(inputs), _ROWS_AT_ONCE):
        centred = inputs[at : at + _ROWS_AT_ONCE].astype(np.float64) - mean.reshape(shape)
        squares += (centred**2).sum(axis=axes)
    deviation = np.sqrt(squares / count)
    deviation[deviation == 0] = 1.0
    return mean.reshape(shape).astype(np.float32), deviation.reshape(shape).astype(np.float32)
