"""Read and set values in nested mappings, such as parsed YAML. A path of keys locates a value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Keys = tuple[str, ...]


def with_value(values: Mapping[str, Any], path: Keys, value: Any) -> dict[str, Any]:
    """Return a copy of nested mappings with ``value`` set at ``path``.

    A parent of ``path`` that is not a mapping is converted by :func:`expand_short_form`.
    """
    if len(path) == 1:
        return {**values, path[0]: value}
    return {**values, path[0]: with_value(expand_short_form(values.get(path[0])), path[1:], value)}


def value_at(values: Mapping[str, Any], path: Keys) -> Any:
    """Return the value at a path, or None if the path does not exist."""
    inner: Any = values
    for key in path:
        inner = inner.get(key) if isinstance(inner, Mapping) else None
    return inner


def expand_short_form(value: Any) -> dict[str, Any]:
    """Return an unvalidated value as a mapping.

    A string becomes ``{"mode": string}``, because it is the short form of a convergence gate. Every
    other value that is not a mapping becomes ``{}``.
    """
    if isinstance(value, dict):
        return value
    return {"mode": value} if isinstance(value, str) else {}


def merge_defaults(defaults: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested values with defaults added for missing keys."""
    merged = {**defaults, **values}
    for key, default in defaults.items():
        if isinstance(default, dict) and isinstance(values.get(key), dict | str):
            merged[key] = merge_defaults(default, expand_short_form(values[key]))
    return merged


def without_none(values: dict[str, Any]) -> dict[str, Any]:
    """Return a copy without the keys whose value is None, at all levels except inside
    ``kwargs``."""
    return {
        key: without_none(value) if isinstance(value, dict) and key != "kwargs" else value
        for key, value in values.items()
        if value is not None
    }
