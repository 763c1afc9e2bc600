"""Base class, field marks and number types that all sections of a spec share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, TypeGuard

from pydantic import BaseModel, ConfigDict, Field

LOCATION = "location"
"""Marks the location of samples or code. It cannot change a result and is not part of a point's
id."""
LIMIT = "limit"
"""Marks a limit that can end a measurement, but cannot change a result; not part of a point's
id."""
PRECISION = "precision"
"""Marks a key that decides only how precise an estimate is; not part of a point's id, so the same
trainings serve every precision."""
CALLED = "called"
"""Marks the name of a data set. It distinguishes data sets whose locations are not part of the
id."""
FILLED = "filled"
"""Marks a field that users do not write: flexhpc sets it when it reads a spec."""
NUISANCE = "nuisance"
"""Marks a nuisance parameter, which may be tuned: it changes neither the data, nor the number of
parameters, nor the budget, and the EMC is of interest only at its best value."""

Count = Annotated[int, Field(ge=1, le=10**12)]
Rate = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Decay = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]


class Section(BaseModel):
    """Base of every section: frozen, strict, without unknown keys, documented by its fields."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )
    called: ClassVar[tuple[str, ...]] = ()
    """Names of a variant, if the annotation of its deciding key does not list them."""
    does: ClassVar[str] = ""
    """Import path of the variant's implementation, ``module:name``; the base class of the section
    describes its interface."""
    decided_by: ClassVar[str] = ""
    """The key that selects this variant, if it is not the section's usual one."""

    @classmethod
    def marked(cls, mark: str) -> list[str]:
        """Return the names of the fields that have a mark, in the order of their definition."""
        return [name for name, field in cls.model_fields.items() if mark in field.metadata]

    @classmethod
    def clashes(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield (dotted key, problem) for keys of the spec that cannot be combined.

        Receives the unvalidated values of the user, of any type, so that these errors are reported
        together with all others.
        """
        yield from ()


def number(value: object) -> object:
    """Return an int as a float, so that 1 and 1.0 are the same value; return other values
    unchanged."""
    return float(value) if isinstance(value, int) else value


def positive(value: object) -> TypeGuard[int]:
    """Return whether an unvalidated value is a positive integer."""
    return isinstance(value, int) and value > 0
