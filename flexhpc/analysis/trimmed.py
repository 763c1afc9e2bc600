"""Shortened swept values: entries common to all mappings of a key are removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from flexhpc.store.status import PointStatus


def trimmed(statuses: Sequence[PointStatus]) -> list[PointStatus]:
    """Remove the entries that all swept mappings of a key have in common from the points.

    Of ``{optimizer: sgd, steps: 2000, weight_decay: 0.01}`` and ``{optimizer: sgd, steps: 2000}``,
    the first becomes ``{weight_decay: 0.01}``. A mapping that would become empty keeps its first
    entry, which selects the variant: the second becomes ``{optimizer: sgd}``.
    """
    common: dict[str, dict[str, Any]] = {}
    for key in dict.fromkeys(key for status in statuses for key in status.point.swept):
        values = [s.point.swept[key] for s in statuses if key in s.point.swept]
        if all(isinstance(value, dict) for value in values):
            first = values[0]
            common[key] = {
                k: v for k, v in first.items() if all(k in x and x[k] == v for x in values)
            }
    if not any(common.values()):
        return list(statuses)
    return [_without(status, common) for status in statuses]


def _without(status: PointStatus, common: dict[str, dict[str, Any]]) -> PointStatus:
    swept = dict(status.point.swept)
    for key, shared in common.items():
        if key in swept:
            own = {k: v for k, v in swept[key].items() if k not in shared}
            swept[key] = own or dict(list(swept[key].items())[:1])
    return replace(status, point=replace(status.point, swept=swept))
