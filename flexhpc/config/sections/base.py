"""Base class, field marks and number types that all sections of a spec share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema

LOCATION = "location"
"""Marks the location of samples or code. It does not change results and is not part of a point's
id."""
LIMIT = "limit"
"""Marks a limit that may end a measurement but does not change results. It is not part of a point's
id."""
PRECISION = "precision"
"""Marks a key that changes only the precision of an estimate. It is not part of a point's id, so a
change of precision reuses the stored training runs."""
DATA_SET_NAME = "data_set_name"
"""Marks the name of a data set. It distinguishes data sets whose locations are not part of the
id."""
INTERNAL = "internal"
"""Marks a field that flexhpc sets when it reads a spec; users cannot set it."""


@dataclass(frozen=True)
class Nuisance:
    """Marks a nuisance parameter, which may be tuned. It changes neither the data, nor the number
    of parameters, nor the budget, and the EMC is of interest only at its best value."""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Return the JSON schema of the plain value or of ``{tune: [...]}``."""
        numbers = {"type": "array", "items": {"type": "number"}, "minItems": 2}
        tuned = {"type": "object", "properties": {"tune": numbers}, "required": ["tune"]}
        return {"anyOf": [handler(schema), {**tuned, "additionalProperties": False}]}


NUISANCE = Nuisance()
Problems = Iterator[tuple[str, str]]
"""Pairs (dotted key, problem) of a section."""

Count = Annotated[int, Field(ge=1, le=10**12)]
Rate = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Decay = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]


class Section(BaseModel):
    """Base class of all sections: immutable, strictly validated, without unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )
    aliases: ClassVar[tuple[str, ...]] = ()
    """Names of a variant, if the annotation of its discriminator key does not list them."""
    import_path: ClassVar[str] = ""
    """Import path of the variant's implementation, ``module:name``; the base class of the section
    describes its interface."""
    discriminator: ClassVar[str] = ""
    """The key that selects this variant, if it differs from the section's usual one."""

    @classmethod
    def marked(cls, mark: str) -> list[str]:
        """Return the names of the fields that have a mark, in the order of their definition."""
        return [name for name, field in cls.model_fields.items() if mark in field.metadata]

    def check(self) -> Problems:
        """Yield (dotted key, problem) for keys that cannot be combined.

        If keys are invalid, this is called on a section without them, in which missing required
        keys are None, so that all errors are reported at once.
        """
        yield from ()


def inner_section(field: FieldInfo) -> type[Section] | None:
    """Return the section class in the type of a field; None if there is none."""
    parts = (field.annotation, *get_args(field.annotation))
    return next((p for p in parts if isinstance(p, type) and issubclass(p, Section)), None)
