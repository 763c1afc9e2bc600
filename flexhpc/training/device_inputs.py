"""Inputs of a probe on the training device, stored as standardised floats or as uint8.

uint8 inputs are standardised whenever a batch is used. The results are bit-identical to those of
float inputs, and uint8 takes a quarter of the memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from flexhpc.training.outcome import ProbeData

_MIN_CHUNK, _MAX_VALUES = 64, 2**23


def chunk_size(sample_shape: Sequence[int], max_samples: int) -> int:
    """Return the number of samples per forward pass (chunk), at most ``max_samples``.

    The number is smaller for large samples, because the activations of a chunk must fit into GPU
    memory whenever the activations of a training batch fit.
    """
    return min(max_samples, max(_MIN_CHUNK, _MAX_VALUES // max(1, math.prod(sample_shape))))


class DeviceInputs:
    """Inputs of all samples of a probe, on the device of the training run.

    Args:
        data: samples of the probe.
        double: whether to return inputs as float64 instead of float32.
    """

    def __init__(self, data: ProbeData, *, double: bool) -> None:
        self.is_uint8 = data.moments is not None
        self._dtype = torch.float64 if double else torch.float32
        self._rows = data.inputs if self.is_uint8 else data.inputs.to(self._dtype)
        self._moments = data.moments
        self._batch_rows = self._rows[:0]
        self._batch = self._batch_rows
        self.shape = data.inputs.shape

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        """Return the standardised inputs of m selected samples, float32 or float64 (m, ...)."""
        rows = self._rows[index]
        if not self.is_uint8:
            return rows
        return self._standardise(rows, torch.empty_like(rows, dtype=torch.float32))

    def batch(self, ids: Tensor) -> Tensor:
        """Return the same as ``self[ids]``, but in a buffer that the next call overwrites.

        Reusing a buffer is faster than allocating memory for every batch.
        """
        if len(ids) > len(self._batch_rows):
            self._batch_rows = self._rows.new_empty((len(ids), *self.shape[1:]))
            if self.is_uint8:
                self._batch = torch.empty_like(self._batch_rows, dtype=torch.float32)
        rows = torch.index_select(self._rows, 0, ids, out=self._batch_rows[: len(ids)])
        return self._standardise(rows, self._batch[: len(ids)]) if self.is_uint8 else rows

    def _standardise(self, rows: Tensor, out: Tensor) -> Tensor:
        """Standardise uint8 inputs with the operations used for float inputs, in the same order."""
        assert self._moments is not None
        mean, deviation = self._moments
        return out.copy_(rows).sub_(mean).div_(deviation).to(self._dtype)
