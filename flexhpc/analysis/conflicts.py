"""The chance that a random subset holds identical inputs with different labels: nobody fits it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import numpy as np

from flexhpc.search import Estimate
from flexhpc.store import Header
from flexhpc.store.status import PointStatus

Groups = Sequence[tuple[Sequence[int], int]]
"""Samples of each label in a group of identical inputs, and how many such groups there are."""
_WORTH_SAYING = 1e-3
_REACH = 30
"""Standard deviations of a subset's size within which all of its chance lies."""


def chance_of_conflict(groups: Groups, pool: int, n: int) -> float:
    """Return the chance that n samples, drawn without replacement, hold a label conflict.

    Draw every sample of the pool (N samples) with chance p = n / N, independently. A group with
    c_l samples of label l, s in all, then holds no conflict if it gives nothing, or samples of one
    label alone. With k = 1 - p + p z counting each drawn sample by a factor z, that is

        f(z) = sum_l (1 - p)^(s - c_l) k^c_l - (L - 1) (1 - p)^s

    for L labels, as "nothing" is in each of the L terms. Groups are independent and all other
    samples do no harm, so the coefficient of z^n in k^(N - S) times the product of all f, S samples
    in the groups, is P(no conflict and n drawn). Given that n are drawn, every subset of n is
    equally likely: dividing by P(n drawn), the coefficient of z^n in k^N, leaves the subsets
    without replacement, exactly. Both coefficients are read off by a discrete Fourier transform
    over the unit circle, long enough for all sizes that such a draw can have (``_REACH``).

    Args:
        groups: those of identical inputs with at least two labels.
        pool: samples that may be drawn, N; n: how many are, at most N.
    """
    if not groups:
        return 0.0
    p = n / pool
    length = min(pool + 1, math.ceil(_REACH * math.sqrt(pool * p * (1 - p))) + 100)
    turns = np.exp(2j * np.pi * np.arange(length) / length)
    kept = 1 - p + p * turns
    calm = kept ** (pool - sum(sum(labels) * many for labels, many in groups))
    for labels, many in groups:
        s = sum(labels)
        one = sum((1 - p) ** (s - c) * kept**c for c in labels)
        calm = calm * (one - (len(labels) - 1) * (1 - p) ** s) ** many
    back = turns.conj() ** n
    without = (calm * back).sum().real / (kept**pool * back).sum().real
    return float(np.clip(1 - without, 0, 1))


def conflict_chance(header: Header, estimate: Estimate) -> float | None:
    """Return the chance of a conflict at n = EMC; None where there is no EMC, or no file says it.

    With a right-censored EMC it is that at its bound.
    """
    if not header.conflict_groups or estimate.censored == "left":
        return None
    groups = json.loads(header.conflict_groups)
    return chance_of_conflict(groups, header.n_pool, min(estimate.emc, header.n_pool))


def conflict_notes(statuses: Sequence[PointStatus]) -> list[str]:
    """Say what limits a fit: identical inputs with different labels, a sentence for each data."""
    by_data: dict[str, list[PointStatus]] = {}
    for status in statuses:
        if status.record and status.record.header.conflicts:
            header = status.record.header
            by_data.setdefault(f"{header.data_fingerprint} {header.unfittable}", []).append(status)
    return [_note(some) for some in by_data.values()]


def _note(some: Sequence[PointStatus]) -> str:
    record, data = some[0].record, some[0].point.data
    assert record is not None
    header = record.header
    note = (
        f"{data.source}, labels {data.labels}: {header.conflicts} groups of identical inputs have "
        f"different labels, so at most {header.n_total - header.unfittable:,} of "
        f"{header.n_total:,} samples can fit."
    )
    chances = [
        conflict_chance(s.record.header, s.estimate) for s in some if s.record and s.estimate
    ]
    high = [chance for chance in chances if chance is not None and chance > _WORTH_SAYING]
    if high:
        note += (
            f" A random subset of as many samples as the EMC holds such a conflict, which no "
            f"network can fit, with a chance of up to {100 * max(high):.2g} % (above "
            f"{100 * _WORTH_SAYING:g} % for {len(high)} of {len(some)} points)."
        )
    return note
