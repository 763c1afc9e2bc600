"""Label conflicts: identical inputs with different labels, which no network can fit."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import numpy as np

from flexhpc.search import Estimate
from flexhpc.store import Header
from flexhpc.store.status import PointStatus

Groups = Sequence[tuple[Sequence[int], int]]
"""Groups of identical inputs, as pairs: the number of samples of each label in a group, and the
number of such groups."""
_MIN_CHANCE = 1e-3
_REACH = 30
"""Length of the Fourier transform, in standard deviations of the subset size. The probability of
sizes outside this range is negligible."""


def chance_of_conflict(groups: Groups, pool: int, n: int) -> float:
    """Return the probability that n samples, drawn without replacement, contain a label conflict.

    Draw each of the N samples of the pool independently with probability p = n / N. A group with
    c_l samples of label l, s in total, has no conflict if none of its samples is drawn, or only
    samples of one label. With k = 1 - p + p z, in which each drawn sample contributes a factor z,
    the generating function of this event is

        f(z) = sum_l (1 - p)^(s - c_l) k^c_l - (L - 1) (1 - p)^s

    for L labels: each of the L terms includes the case that nothing is drawn, so L - 1 of these are
    subtracted. Groups are independent, and samples outside the groups, which contain S samples,
    cannot conflict. Therefore P(no conflict and n drawn) is the coefficient of z^n in the product
    of k^(N - S) and all f. Given that n samples are drawn, all subsets of size n are equally
    likely, so dividing by P(n drawn), the coefficient of z^n in k^N, gives the exact probability
    for drawing without replacement. Both coefficients are computed by a discrete Fourier transform
    over the unit circle; its length covers all subset sizes that are likely (see ``_REACH``).

    Args:
        groups: groups of identical inputs with at least two labels.
        pool: number of samples to draw from, N.
        n: number of samples drawn, at most N.
    """
    if not groups:
        return 0.0
    p = n / pool
    length = min(pool + 1, math.ceil(_REACH * math.sqrt(pool * p * (1 - p))) + 100)
    z = np.exp(2j * np.pi * np.arange(length) / length)
    k = 1 - p + p * z
    product = k ** (pool - sum(sum(labels) * count for labels, count in groups))
    for labels, count in groups:
        s = sum(labels)
        one_label = sum((1 - p) ** (s - c) * k**c for c in labels)
        product = product * (one_label - (len(labels) - 1) * (1 - p) ** s) ** count
    inverse = z.conj() ** n
    no_conflict = (product * inverse).sum().real / (k**pool * inverse).sum().real
    return float(np.clip(1 - no_conflict, 0, 1))


def conflict_chance(header: Header, estimate: Estimate) -> float | None:
    """Return the probability of a conflict at n = EMC; None for a left-censored EMC.

    For a right-censored EMC, n is its lower bound.
    """
    if estimate.censored == "left":
        return None
    groups = json.loads(header.conflict_groups)
    return chance_of_conflict(groups, header.n_pool, min(estimate.emc, header.n_pool))


def conflict_notes(statuses: Sequence[PointStatus]) -> list[str]:
    """Describe how label conflicts limit the fit, one note per data set with conflicts."""
    by_data: dict[str, list[PointStatus]] = {}
    for status in statuses:
        if status.record and status.record.header.conflicts:
            header = status.record.header
            by_data.setdefault(f"{header.data_fingerprint} {header.unfittable}", []).append(status)
    return [_note(points) for points in by_data.values()]


def _note(points: Sequence[PointStatus]) -> str:
    record, data = points[0].record, points[0].point.data
    assert record is not None
    header = record.header
    note = (
        f"{data.source}, labels {data.labels}: {header.conflicts} groups of identical inputs have "
        f"different labels, so at most {header.n_total - header.unfittable:,} of "
        f"{header.n_total:,} samples can be fitted."
    )
    chances = [
        conflict_chance(s.record.header, s.estimate) for s in points if s.record and s.estimate
    ]
    high = [chance for chance in chances if chance is not None and chance > _MIN_CHANCE]
    if high:
        note += (
            f" A random subset of n = EMC samples contains such a conflict with a probability of "
            f"up to {100 * max(high):.2g} % (above {100 * _MIN_CHANCE:g} % for "
            f"{len(high)} of {len(points)} points)."
        )
    return note
