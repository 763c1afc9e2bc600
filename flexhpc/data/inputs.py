"""Standardise the inputs of a network, and optionally permute them or replace them by noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flexhpc.data.dataset import Array, Ints

TRAIN, TEST = 0, 1


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The inputs of a training or test set.

    Attributes:
        rows: the unstandardised inputs, (n, ...).
        mean, deviation: an input is standardised to (input - ``mean``) / ``deviation``.
        centre, spread: mean and standard deviation of the Gaussian noise that replaces inputs if
            ``kind`` is ``gaussian``. They equal the mean and standard deviation of the training set
            after standardisation: by default 0 and 1 (0 and 0 for a constant feature).
        kind: value of the key ``data.inputs``.
        seed: seed of noise and permutations.
        split: TRAIN or TEST; the two sets use different random streams.
    """

    rows: Array
    mean: Array
    deviation: Array
    centre: Array
    spread: Array
    kind: str
    seed: int
    split: int

    def select(self, ids: Ints) -> Array:
        """Return the network inputs of the samples ``ids``, float32 (len(ids), ...).

        Noise and permutations depend only on the seed and the sample id, so a sample has the same
        input in every probe. All channels of a pixel are permuted together. Missing values are
        replaced by the mean.
        """
        shape = self.rows.shape[1:]
        if self.kind == "gaussian":
            noise = np.empty((len(ids), *shape), np.float32)
            for row, sample_id in zip(noise, ids, strict=True):
                self._sample_rng(sample_id).standard_normal(dtype=np.float32, out=row)
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
        for row, sample_id in zip(flat, ids, strict=True):
            row[...] = row[..., self._sample_rng(sample_id).permutation(flat.shape[-1])]
        return flat.reshape(values.shape)

    def select_unstandardised(self, ids: Ints) -> tuple[Array, Array, Array] | None:
        """Return the uint8 inputs of the samples ``ids`` so that the caller can standardise them.

        Returns:
            The unstandardised inputs, uint8 (len(ids), ...), and the mean and standard deviation
            with which to standardise them, float32. None if the inputs are not uint8, or are
            permuted or replaced by noise.
        """
        if self.kind != "original" or self.rows.dtype != np.uint8:
            return None
        return self.rows[ids], self.mean, self.deviation

    def _sample_rng(self, sample_id: np.int64) -> np.random.Generator:
        """Create the random generator of a sample; this is fast because Philox is counter-based."""
        key = np.array([self.seed, sample_id], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, self.split]))
