"""Base class, field marks and number types that all sections of a spec share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema

LOCATION = "location"
"""Marks a key with the location of samples or code, such as ``path``. The location does not change
results and is not part of a point's id."""
LIMIT = "limit"
"""Marks a key that limits the time or memory of a measurement. The limit does not change the
results of completed measurements and is not part of a point's id."""
PRECISION = "precision"
"""Marks a key that changes only the precision of an estimate. Such a key is not part of a point's
id, so that the stored training runs are reused if the precision changes."""
DATA_SET_NAME = "data_set_name"
"""Marks the key for the name of a data set. The name distinguishes data sets in a point's id, which
does not contain the location of the data."""
INTERNAL = "internal"
"""Marks a field that flexhpc sets when it reads a spec; users cannot set it."""
UNION_TAG = "union-"
"""Prefix of pydantic's tags of the alternatives of a key; validation omits them from paths."""


@dataclass(frozen=True)
class Nuisance:
    """Marks the key of a nuisance parameter, which may be tuned.

    Such a parameter changes neither the data, nor the number of parameters, nor the budget. Only
    the EMC at the best value of the parameter is of interest.
    """

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Return a JSON schema that allows both a single value and ``{tune: [...]}``."""
        numbers = {"type": "array", "items": {"type": "number"}, "minItems": 2}
        tuned = {"type": "object", "properties": {"tune": numbers}, "required": ["tune"]}
        return {"anyOf": [handler(schema), {**tuned, "additionalProperties": False}]}


NUISANCE = Nuisance()
Problems = Iterator[tuple[str, str]]
"""Pairs (dotted key, problem), one for each invalid key."""

Count = Annotated[int, Field(ge=1, le=10**12)]
PositiveNumber = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
NonNegativeNumber = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]


class Section(BaseModel):
    """Base class of all sections, which are immutable. Wrong types and unknown keys are errors."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )
    aliases: ClassVar[tuple[str, ...]] = ()
    """Names of the variant, if the annotation of the discriminator key does not list them."""
    import_path: ClassVar[str] = ""
    """Import path of the variant's implementation, ``module:name``. The docstring of the section's
    base class describes what an implementation takes and returns."""
    discriminator: ClassVar[str] = ""
    """Name of the key that selects this variant; empty if it is the default key of the section."""

    @classmethod
    def fields_with_mark(cls, mark: str) -> list[str]:
        """Return the names of the fields marked with ``mark``, in the order of their definition."""
        return [name for name, field in cls.model_fields.items() if mark in field.metadata]

    def combination_problems(self) -> Problems:
        """Yield (dotted key, problem) for keys that cannot be combined.

        The method is also called if some keys are invalid, so that all errors are reported at once.
        The section then contains only the valid keys, and None for missing required keys.
        """
        yield from ()


def inner_section(field: FieldInfo) -> type[Section] | None:
    """Return the section class in the annotation of a field; None if the annotation has none."""
    parts = annotation_parts(field)
    return next((p for p in parts if isinstance(p, type) and issubclass(p, Section)), None)


def annotation_parts(field: FieldInfo) -> list[Any]:
    """Return the annotation of a field and all types that it contains, at any depth."""
    parts: list[Any] = [field.annotation]
    for part in parts:
        parts += get_args(part)
    return parts
