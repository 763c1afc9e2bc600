"""Bit-packed masks over global sample ids; sample 0 is the most significant bit of byte 0."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint8]


def pack_mask(ids: NDArray[np.int64], n_total: int) -> Bits:
    """Return a packed mask that is 1 at ``ids``, uint8 (ceil(n_total / 8),).

    The bit order is the default of ``np.packbits`` (``bitorder="big"``).
    """
    mask = np.zeros(n_total, dtype=bool)
    mask[ids] = True
    return np.packbits(mask)


def unpack_masks(bits: Bits, n_total: int) -> NDArray[np.bool_]:
    """Unpack masks of shape (..., ceil(n_total / 8)) to bool (..., n_total)."""
    return np.unpackbits(bits, axis=-1, count=n_total).astype(bool)
