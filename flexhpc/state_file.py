"""Read small JSON state files, which processes exchange, as typed dataclasses.

Unknown keys may come from another version of flexhpc and are ignored. A file that lacks a required
key, or has a value of the wrong type, is treated as missing.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from flexhpc.atomic import read_json

Kind = TypeVar("Kind")


def read_state(kind: type[Kind], path: Path, **more: Any) -> Kind | None:
    """Read a dataclass from a JSON file; return None if the file is missing or invalid.

    Args:
        kind: dataclass.
        path: file.
        more: values of fields that are not stored in the file.
    """
    value = read_json(path)
    if value is None:
        return None
    try:
        read: Kind = _adapter(cast(Hashable, kind)).validate_python({**value, **more})
    except ValidationError:
        return None
    return read


@lru_cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
