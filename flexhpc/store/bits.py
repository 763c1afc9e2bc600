"""Masks over global sample ids as packed bits, the first sample in the high bit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint8]


def pack(ids: NDArray[np.int64], n_total: int) -> Bits:
    """Return a packed mask of ceil(n_total / 8) bytes that is 1 at ``ids`` (np.packbits, big)."""
    mask = np.zeros(n_total, dtype=bool)
    mask[ids] = True
    return np.packbits(mask)


def unpack(bits: Bits, n_total: int) -> NDArray[np.bool_]:
    """Return bool (..., n_total) from packed (..., ceil(n_total / 8))."""
    return np.unpackbits(bits, axis=-1, count=n_total).astype(bool)
