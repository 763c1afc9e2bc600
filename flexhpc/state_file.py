"""Small JSON files that processes leave each other: read back as what they were written from.

A key that is not known is of another version of flexhpc, and left out; a file that lacks one, or
has a value of another kind, counts as none.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from flexhpc.atomic import read_json

Kind = TypeVar("Kind")


def read_as(kind: type[Kind], path: Path, **more: Any) -> Kind | None:
    """Return the dataclass that a file holds; None if there is no such file, or it holds another.

    Args:
        kind: the dataclass; path: of the file; more: fields that the file does not hold.
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
