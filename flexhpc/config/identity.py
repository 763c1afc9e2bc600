"""Identity of points, independent of spec, machine and folder.

The id of a point is a hash of the canonical JSON of everything that can change its result.
``HASH_VERSION`` is increased if the meaning of stored points changes, or a default that changes
results. A frozen spec stores the version with which it was written, so its points keep their ids. A
field added later is omitted from the canonical JSON at its default (``None``, or marked ``LATER``)
or at the value that reproduces earlier versions (marked ``Since``). An upgrade therefore never
reruns a finished sweep.
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
    """Return the values by which a section contributes to a point's id, for a hash version."""
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
    """Return the values that reproduce an earlier hash version, for fields that were added
    later."""
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
    """Return the ``Since`` marks of a field that was added after a hash version."""
    return [m for m in field.metadata if isinstance(m, Since) and m.version > version]


def canonical(value: Any) -> str:
    """Return JSON with sorted keys and no spaces, so that equal values have equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def point_json(
    data: str, model: str, search: str, seed: int, training: str, version: int = HASH_VERSION
) -> str:
    """Return the canonical JSON of a point from the canonical JSON of its sections."""
    return (
        f'{{"data":{data},"model":{model},"search":{search},"seed":{seed},'
        f'"training":{training},"version":{version}}}'
    )


def digest(text: str) -> str:
    """Return the id of a canonical JSON text: the first 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:_ID_DIGITS]
