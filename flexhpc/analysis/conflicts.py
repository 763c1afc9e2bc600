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
"""Groups of identical inputs. Each entry is a pair that describes all groups with the same label
counts: the number of samples of each label in one such group, and the number of such groups."""
_MIN_CHANCE = 1e-3
_LENGTH = 30
"""Length of the discrete Fourier transform, as a multiple of the standard deviation of the subset
size. Larger deviations of the subset size have a negligible probability."""


def chance_of_conflict(groups: Groups, pool: int, n: int) -> float:
    """Return the probability that n samples, drawn without replacement, contain a label conflict.

    Suppose that each of the N samples of the pool is drawn independently with probability
    p = n / N. The number of drawn samples then has the generating function k^N with
    k = 1 - p + p z: each drawn sample contributes a factor z. A group has c_l samples of label l,
    and s samples in total. It has no conflict if none of its samples, or only samples of one label,
    are drawn. For L labels, the generating function of this event is

        f(z) = sum_l (1 - p)^(s - c_l) k^c_l - (L - 1) (1 - p)^s

    Each of the L terms of the sum includes the case that no sample of the group is drawn, so this
    case is subtracted L - 1 times. All groups together have S samples; the other N - S samples
    cannot conflict. Groups are independent, so P(no conflict and n drawn) is the coefficient of z^n
    in the product of k^(N - S) and all f. P(n drawn) is the coefficient of z^n in k^N. All subsets
    of size n are equally likely, so the quotient of the two coefficients is the exact probability
    of no conflict for drawing without replacement. Both coefficients are computed by a discrete
    Fourier transform over the unit circle, which covers all likely subset sizes (``_LENGTH``).

    Args:
        groups: groups of identical inputs with at least two labels.
        pool: number of samples to draw from, N.
        n: number of samples drawn, at most N.
    """
    if not groups:
        return 0.0
    p = n / pool
    length = min(pool + 1, math.ceil(_LENGTH * math.sqrt(pool * p * (1 - p))) + 100)
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


def conflict_chance_at_emc(header: Header, estimate: Estimate) -> float | None:
    """Return the probability that n = EMC random samples contain a label conflict.

    For a right-censored EMC, n is its lower bound. For a left-censored EMC, return None.
    """
    if estimate.censored == "left":
        return None
    groups = json.loads(header.conflict_groups)
    return chance_of_conflict(groups, header.n_pool, min(estimate.emc, header.n_pool))


def conflict_notes(statuses: Sequence[PointStatus]) -> list[str]:
    """Return one text per data set with label conflicts: how many of its samples can be fitted."""
    by_data: dict[str, list[PointStatus]] = {}
    for status in statuses:
        if status.record and status.record.header.conflicts:
            header = status.record.header
            by_data.setdefault(f"{header.data_fingerprint} {header.unfittable}", []).append(status)
    return [_conflict_note(points) for points in by_data.values()]


def _conflict_note(points: Sequence[PointStatus]) -> str:
    record, data = points[0].record, points[0].point.data
    assert record is not None
    header = record.header
    note = (
        f"{data.source}, labels {data.labels}: {header.conflicts} groups of identical inputs "
        f"have different labels, so at most {header.n_total - header.unfittable:,} of "
        f"{header.n_total:,} samples can be fitted."
    )
    chances = [
        conflict_chance_at_emc(s.record.header, s.estimate)
        for s in points
        if s.record and s.estimate
    ]
    high = [chance for chance in chances if chance is not None and chance > _MIN_CHANCE]
    if high:
        note += (
            f" A random subset of n = EMC samples contains such a conflict with a probability of "
            f"up to {100 * max(high):.2g} %; for {len(high)} of {len(points)} points, the "
            f"probability is above {100 * _MIN_CHANCE:g} %."
        )
    return note
