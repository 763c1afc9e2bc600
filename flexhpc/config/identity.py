"""Identity: which point this is, whatever spec, machine or folder it comes from.

An id is a hash of the canonical JSON of all that can change a result. ``HASH_VERSION`` changes if
the meaning of stored points does, or a default that changes results; a frozen spec says with which
version it was made, and its points keep their ids. A field added later is left out of the
canonical JSON at its default (``None``, or marked ``LATER``), or at what earlier versions did
(marked ``Since``), so that an upgrade never silently re-runs a finished sweep.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic.fields import FieldInfo

from flexhpc.config.sections.base import LATER, LIMIT, LOCATION, Section, Since

HASH_VERSION = 3
_ID_DIGITS = 16


def plain(section: Section, version: int = HASH_VERSION) -> dict[str, Any]:
    """Return what a section adds to a point's id, by the rules of a hash version."""
    values: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        as_before = LATER in field.metadata and value == field.default
        as_before |= any(value == later.before for later in _later(field, version))
        aside = LOCATION in field.metadata or LIMIT in field.metadata
        if value is not None and not as_before and not aside:
            values[name] = plain(value, version) if isinstance(value, Section) else value
    return values


def before(cls: type[Section], version: int) -> dict[str, Any]:
    """Return what points of an earlier hash version did where a later one has a key for it."""
    values: dict[str, Any] = {}
    for name, field in cls.model_fields.items():
        inner = field.default
        if isinstance(inner, Section) and (old := before(type(inner), version)):
            values[name] = old
        for later in _later(field, version):
            then = later.before
            values[name] = then.model_dump() if isinstance(then, Section) else then
    return values


def _later(field: FieldInfo, version: int) -> list[Since]:
    """Return the mark of a field that a hash version did not have yet."""
    return [m for m in field.metadata if isinstance(m, Since) and m.version > version]


def canonical(value: Any) -> str:
    """Return JSON with sorted keys and no spaces: one text per value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def point_json(
    data: str, model: str, search: str, seed: int, training: str, version: int = HASH_VERSION
) -> str:
    """Return a point's canonical JSON, from that of its sections."""
    return (
        f'{{"data":{data},"model":{model},"search":{search},"seed":{seed},'
        f'"training":{training},"version":{version}}}'
    )


def digest(text: str) -> str:
    """Return the id of a canonical JSON text: 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:_ID_DIGITS]
