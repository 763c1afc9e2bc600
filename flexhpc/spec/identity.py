"""Identity: which point this is, whatever spec, machine or folder it comes from.

An id is a hash of the canonical JSON of all that can change a result. ``HASH_VERSION`` changes only
if the meaning of stored points changes; a field added later is left out of the canonical JSON at
its default (``None``, or marked ``LATER``), so that an upgrade never silently re-runs a finished
sweep.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from flexhpc.spec.sections.base import LATER, Section

HASH_VERSION = 1
_ID_DIGITS = 16


def plain(section: Section) -> dict[str, Any]:
    """Return all set or defaulted values of a section, without those that only say where."""
    values: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        as_before = LATER in field.metadata and value == field.default
        if value is not None and not as_before and name not in type(section).where_only:
            values[name] = plain(value) if isinstance(value, Section) else value
    return values


def canonical(value: Any) -> str:
    """Return JSON with sorted keys and no spaces: one text per value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def point_json(data: str, model: str, search: str, seed: int, training: str) -> str:
    """Return a point's canonical JSON, from that of its sections."""
    return (
        f'{{"data":{data},"model":{model},"search":{search},"seed":{seed},'
        f'"training":{training},"version":{HASH_VERSION}}}'
    )


def digest(text: str) -> str:
    """Return the id of a canonical JSON text: 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:_ID_DIGITS]
