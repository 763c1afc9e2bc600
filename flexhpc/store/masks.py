"""Fit masks of a point: which samples each probe was trained on, and which of them it fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexhpc.store.bits import Bits, unpack_masks
from flexhpc.store.point_file import open_point_file, probe_groups


@dataclass(frozen=True, kw_only=True)
class Masks:
    """Bit-packed masks of a point's probes; see :mod:`flexhpc.store.bits`.

    Attributes:
        n_total: number of samples in the training set.
        n: subset size of each probe, int64 (probes,).
        subset: whether each sample was in the subset, uint8 (probes, ceil(n_total / 8)).
        fit: whether each sample was in the subset and fitted at the end, same shape as ``subset``.
        outside: whether each sample was outside the subset and evaluated, same shape as ``subset``;
            all bits are 0 for probes recorded without ``record.unseen``.
        outside_fit: whether each sample was outside the subset, evaluated and classified correctly,
            same shape as ``subset``.
        forgotten: for each probe, how often each sample of the subset was forgotten, in ascending
            order of the sample ids, integers (n,); -1 for samples that were never classified
            correctly. None for probes recorded without ``record.forgetting``.
    """

    n_total: int
    n: NDArray[np.int64]
    subset: Bits
    fit: Bits
    outside: Bits
    outside_fit: Bits
    forgotten: Sequence[NDArray[np.signedinteger[Any]] | None] = ()

    def in_subset(self) -> NDArray[np.bool_]:
        """Unpack the subset masks to bool (probes, n_total)."""
        return unpack_masks(self.subset, self.n_total)

    def fitted(self) -> NDArray[np.bool_]:
        """Unpack the fit masks to bool (probes, n_total)."""
        return unpack_masks(self.fit, self.n_total)

    def evaluated_outside_subset(self) -> NDArray[np.bool_]:
        """Unpack the masks of evaluated samples outside the subset to bool (probes, n_total)."""
        return unpack_masks(self.outside, self.n_total)

    def correct_outside_subset(self) -> NDArray[np.bool_]:
        """Unpack the masks of correctly classified samples outside the subset.

        The result is bool (probes, n_total).
        """
        return unpack_masks(self.outside_fit, self.n_total)


def read_masks(path: Path) -> Masks:
    """Read the masks of a point file.

    Raises:
        PointError: the file is missing or corrupt, or was written by another version of flexhpc.
    """
    with open_point_file(path) as file:
        groups = probe_groups(file)
        n_total = int(file.attrs["n_total"])
        empty = np.zeros(-(-n_total // 8), np.uint8)

        def stack_masks(name: str) -> Bits:
            rows = [group[name][:] if name in group else empty for group in groups]
            return np.stack(rows) if rows else np.empty((0, len(empty)), np.uint8)

        return Masks(
            n_total=n_total,
            n=np.array([int(group.attrs["n"]) for group in groups], dtype=np.int64),
            subset=stack_masks("subset"),
            fit=stack_masks("fit"),
            outside=stack_masks("unseen"),
            outside_fit=stack_masks("unseen_fit"),
            forgotten=[group["forgotten"][:] if "forgotten" in group else None for group in groups],
        )
