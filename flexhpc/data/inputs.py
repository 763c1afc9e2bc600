"""Inputs as a network sees them: standardised, and where asked replaced or permuted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from flexhpc.data.dataset import Array, Ints

Kind = Literal["original", "gaussian", "permuted", "permuted_each"]
TRAIN, TEST = 0, 1


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The inputs of a training or a test set.

    Attributes:
        rows: as they were read, (n, ...).
        mean, deviation: what they are standardised with.
        centre, spread: mean and deviation of the training set after that: 0 and 1 but for features
            that are left as they are; the spread of constant ones is 0.
        kind: ``data.inputs`` of the point.
        seed: for what is drawn.
        part: TRAIN or TEST, whose samples draw differently.
    """

    rows: Array
    mean: Array
    deviation: Array
    centre: Array
    spread: Array
    kind: Kind
    seed: int
    part: int

    def of(self, ids: Ints) -> Array:
        """Return the inputs of some samples, float32 (len(ids), ...).

        What is drawn depends on seed and sample id alone, so a sample is the same in every probe.
        A pixel moves with all its channels. Missing values are the mean.
        """
        shape = self.rows.shape[1:]
        if self.kind == "gaussian":
            noise = np.empty((len(ids), *shape), np.float32)
            for row, identity in zip(noise, ids, strict=True):
                self._rng(identity).standard_normal(dtype=np.float32, out=row)
            return noise * self.spread + self.centre
        values = self.rows[ids].astype(np.float32)
        values -= self.mean
        values /= self.deviation
        if self.rows.dtype.kind == "f":
            values[np.isnan(values)] = 0
        if self.kind == "original":
            return values
        flat = values.reshape(len(ids), *shape[:-2], -1)
        if self.kind == "permuted":
            order = np.random.default_rng(self.seed).permutation(flat.shape[-1])
            return flat[..., order].reshape(values.shape)
        for row, identity in zip(flat, ids, strict=True):
            row[...] = row[..., self._rng(identity).permutation(flat.shape[-1])]
        return flat.reshape(values.shape)

    def bytes_of(self, ids: Ints) -> tuple[Array, Array, Array] | None:
        """Return the bytes of some images, and what :meth:`of` subtracts and then divides by.

        uint8 (len(ids), ...) and two of float32; None where that is not all that it does.
        """
        if self.kind != "original" or self.rows.dtype != np.uint8:
            return None
        return self.rows[ids], self.mean, self.deviation

    def _rng(self, identity: np.int64) -> np.random.Generator:
        """A stream of its own for each sample: Philox is counter-based, so that is cheap."""
        key = np.array([self.seed, identity], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, self.part]))
