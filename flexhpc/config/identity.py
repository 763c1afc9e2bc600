"""Ids of points. An id depends on the settings of a point, not on its spec, folder or machine.

The id of a point is a hash of the canonical JSON of all keys that can change its training runs, and
of ``HASH_VERSION``, which is increased if the meaning of stored points changes. Keys that only set
a location, a limit or the precision of the estimate are excluded.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from flexhpc.config.sections.base import LIMIT, LOCATION, PRECISION, Section

HASH_VERSION = 1
_ID_DIGITS = 16
_EXCLUDED_MARKS = {LOCATION, LIMIT, PRECISION}
"""A field with one of these marks is not part of the id of a point."""


def id_values(section: Section) -> dict[str, Any]:
    """Return the values of a section that are part of a point's id."""
    values: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if value is not None and not any(mark in _EXCLUDED_MARKS for mark in field.metadata):
            values[name] = id_values(value) if isinstance(value, Section) else value
    return values


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys and no spaces, so that equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def point_json(data: str, model: str, search: str, seed: int, training: str) -> str:
    """Return the canonical JSON of a point, composed of the canonical JSON of its sections."""
    return (
        f'{{"data":{data},"model":{model},"search":{search},"seed":{seed},'
        f'"training":{training},"version":{HASH_VERSION}}}'
    )


def digest(text: str) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 hash of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:_ID_DIGITS]
