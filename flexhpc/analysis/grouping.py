"""Grouping of items, and the swept keys of points."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from flexhpc.store.status import PointStatus

Item = TypeVar("Item")
Key = TypeVar("Key")


def group_by(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Group items by ``key(item)``; groups are in the order of their first items."""
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def swept_keys(statuses: Sequence[PointStatus]) -> list[str]:
    """Return the swept keys of all points, in the order in which they first occur."""
    return list(dict.fromkeys(key for status in statuses for key in status.point.swept))
