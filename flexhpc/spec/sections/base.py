"""What all sections share: frozen, strict, no unknown keys, documented by their fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, TypeGuard

from pydantic import BaseModel, ConfigDict, Field

LATER = "later"
"""Marks a field that came after the first version. Its default means "as before" and never changes:
at that value it is no part of a point's id."""

Count = Annotated[int, Field(ge=1, le=10**12)]
Rate = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Decay = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]


class Section(BaseModel):
    """Base of every section: frozen, strict, no unknown keys, documented by its fields."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )
    where_only: ClassVar[frozenset[str]] = frozenset()
    """Fields that say where something lies and cannot change a result; not part of the id."""

    @classmethod
    def clashes(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield (dotted key, what is wrong) for given keys that do not go together.

        Sees the values as the user gave them, whatever their types, so that these errors come
        together with all others.
        """
        yield from ()


def number(value: object) -> object:
    """Return a whole number as the float that it is read as, so that 1 and 1.0 are one value."""
    return float(value) if isinstance(value, int) else value


def positive(value: object) -> TypeGuard[int]:
    """Return whether a value, as the user gave it, is a whole number above 0."""
    return isinstance(value, int) and value > 0
