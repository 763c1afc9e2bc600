"""What the finished points of a sweep say of where a new one's EMC lies.

log EMC is close to linear in log parameters. A Gaussian process with that mean, with an offset per
group of points that differ in nothing but the size of their model, predicts the new point. What it
says chooses where to probe and is no part of the estimate: a wrong belief costs probes, and a point
measured beside others has no other EMC than one measured alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flexhpc.search.evidence import Floats

_SLOPE, _SLOPE_SD = 0.8, 0.4
_LEVEL_SD, _GROUP_SD, _BEND_SD, _REST_SD = 3.0, 1.0, 0.25, 0.15
_BEND_REACH = 1.5
"""In log parameters."""
_OUTLIER = 3.0
"""A neighbour that the others miss by more deviations than this is not listened to."""
_TRUST = 0.9
"""Chance that the new point lies where its neighbours say."""
_ELSEWHERE = 1 / 12
"""Density of its threshold if it does not (per unit of log n)."""


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """A finished point: parameters, EMC and its interval (samples), and the group it belongs to."""

    params: int
    emc: int
    emc_lo: int
    emc_hi: int
    group: str


@dataclass(frozen=True, kw_only=True)
class Belief:
    """Where a point's EMC is expected: its log, normal with this centre and scale, or elsewhere.

    Attributes:
        centre: log of samples; scale: deviation; points: ids of the points it comes from.
    """

    centre: float
    scale: float
    points: tuple[str, ...] = ()

    def log_weight(self, threshold: Floats) -> Floats:
        """Return the log-density of thresholds (log n), with heavy tails."""
        z = (threshold - self.centre) / self.scale
        near = np.exp(-0.5 * z * z) / (self.scale * math.sqrt(2 * math.pi))
        return np.asarray(np.log(_TRUST * near + (1 - _TRUST) * _ELSEWHERE))


def believe(
    neighbours: Sequence[Neighbour], params: int, group: str, points: Sequence[str] = ()
) -> Belief | None:
    """Return what finished points say of a new one with ``params`` parameters; None without any."""
    if not neighbours:
        return None
    size = np.log([n.params for n in neighbours] + [params])
    groups = np.array([n.group for n in neighbours] + [group])
    found = np.log([n.emc for n in neighbours]) - _SLOPE * size[:-1]
    spread = np.array([math.log((n.emc_hi + 1) / max(n.emc_lo, 1)) / 3.3 for n in neighbours])
    same = groups[:, None] == groups
    apart = size[:, None] - size
    middle = size - size[:-1].mean()
    cover = _LEVEL_SD**2 + _GROUP_SD**2 * same + _SLOPE_SD**2 * middle[:, None] * middle
    cover = cover + _BEND_SD**2 * same * np.exp(-0.5 * (apart / _BEND_REACH) ** 2)
    noise = spread**2 + _REST_SD**2
    typical = float(np.median(found))
    rest = found - typical
    known = np.ones(len(rest), dtype=bool)
    while True:
        inverse = np.linalg.inv(cover[:-1, :-1][np.ix_(known, known)] + np.diag(noise[known]))
        alone = inverse @ rest[known] / np.sqrt(np.diag(inverse))  # leave-one-out, in deviations
        worst = int(np.argmax(abs(alone)))
        if known.sum() < 4 or abs(alone[worst]) < _OUTLIER:
            break
        known[np.nonzero(known)[0][worst]] = False
    row = cover[-1, :-1][known]
    variance = cover[-1, -1] + _REST_SD**2 - row @ inverse @ row
    return Belief(
        centre=float(typical + _SLOPE * size[-1] + row @ inverse @ rest[known]),
        scale=float(math.sqrt(variance)),
        points=tuple(points),
    )
