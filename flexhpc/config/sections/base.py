"""What all sections share: frozen, strict, no unknown keys, documented by their fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeGuard

from pydantic import BaseModel, ConfigDict, Field

LATER = "later"
"""Marks a field that came after the first version. Its default means "as before" and never changes:
at that value it is no part of a point's id."""


@dataclass(frozen=True, kw_only=True)
class Since:
    """Marks a field that came with a later version of a point's hash, and changes results.

    Attributes:
        version: the first hash version that has the field.
        before: what points of earlier versions did. They are read with it, and at that value it is
            no part of their ids.
    """

    version: int
    before: Any


LOCATION = "location"
"""Marks a field that says where something lies and cannot change a result: no part of the id."""
LIMIT = "limit"
"""Marks a field that can end a measurement, but never change a result: no part of the id."""
CALLED = "called"
"""Marks a field that only tells two of a kind apart, where where they lie does not."""
FILLED = "filled"
"""Marks a field that no user writes: it is filled in when a spec is read."""
NUISANCE = "nuisance"
"""Marks a field that may be tuned: it changes neither the data, nor the number of parameters, nor
the budget, and nobody wants the EMC at any other value of it than the best one."""

Count = Annotated[int, Field(ge=1, le=10**12)]
Rate = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Decay = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]


class Section(BaseModel):
    """Base of every section: frozen, strict, no unknown keys, documented by its fields."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )
    called: ClassVar[tuple[str, ...]] = ()
    """Names of a variant, where the annotation of its deciding key does not give them."""
    does: ClassVar[str] = ""
    """What does what a variant says, as MODULE:NAME; see its section's base class."""
    decided_by: ClassVar[str] = ""
    """The key that picks this variant, where it is not the one of its section."""
    retired: ClassVar[frozenset[str]] = frozenset()
    """Keys of earlier hash versions that have no meaning any more: they stay part of the ids of the
    points that had them, and nothing else."""

    @classmethod
    def marked(cls, mark: str) -> list[str]:
        """Return the fields with a mark, in their order."""
        return [name for name, field in cls.model_fields.items() if mark in field.metadata]

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
