"""Read the small JSON files through which processes exchange their state, as typed dataclasses.

Unknown keys may come from another version of flexhpc and are ignored, unless the dataclass forbids
them. A file that lacks a required key, or has a value of the wrong type, is treated as missing.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from flexhpc.atomic import read_json

T = TypeVar("T")


def read_state(cls: type[T], path: Path, **extra_fields: Any) -> T | None:
    """Read a dataclass from a JSON file; return None if the file is missing or invalid.

    Args:
        extra_fields: values of the fields that are not stored in the file.
    """
    value = read_json(path)
    if value is None:
        return None
    try:
        state: T = _type_adapter(cast(Hashable, cls)).validate_python({**value, **extra_fields})
    except ValidationError:
        return None
    return state


@lru_cache
def _type_adapter(cls: Any) -> TypeAdapter[Any]:
    return TypeAdapter(cls)
