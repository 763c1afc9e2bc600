"""Registry of the variants of each section, collected from the modules that define them.

Each variant is a class. The annotation of its discriminator key (``optimizer: Literal["adam"]``)
gives the name of the variant. The implementation of a variant, ``import_path``, is imported only
when it is needed, because it can import this package, and because importing torch is slow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module
from typing import Any, Generic, TypeVar, get_args

from pydantic import create_model

from flexhpc.config.sections.base import Section
from flexhpc.config.sections.custom import CUSTOM
from flexhpc.config.sections.data import Data
from flexhpc.config.sections.model import Model
from flexhpc.config.sections.search import Search
from flexhpc.config.sections.training import Procedure
from flexhpc.custom.code import entry_point_targets

MODULES = [
    "flexhpc.config.sections.data",
    "flexhpc.config.sections.files",
    "flexhpc.config.sections.model",
    "flexhpc.config.sections.training",
    "flexhpc.config.sections.search",
    "flexhpc.config.sections.custom",
]
"""Modules that define variants, in the order in which messages and docs list them."""
BASES: dict[str, type[Section]] = {
    "data": Data,
    "model": Model,
    "training": Procedure,
    "search": Search,
}
"""Section -> base class of its variants."""
KEYS = {"data": "source", "model": "family", "training": "optimizer", "search": "policy"}
"""Section -> key that selects its variant, except for variants that define a ``discriminator``."""
ENTRY_POINTS = {"source": "data", "family": "models", "trainer": "trainers"}
"""Discriminator key -> last part of the entry-point group (``models`` of ``flexhpc.models``) in
which packages register more variants."""
DEFAULT_VARIANT = {"data": "digits", "training": "adam", "search": "bayes"}
"""Section -> variant that is used if the spec selects none."""

S = TypeVar("S", bound=Section)


@dataclass(frozen=True, eq=False)
class VariantUnion(Generic[S]):
    """The variants of a section: classes that are selected by the value of a key.

    Attributes:
        key: the key that selects the variant.
        classes: name of a variant -> its class.
    """

    key: str
    classes: dict[str, type[S]]

    @cached_property
    def any_variant(self) -> type[Section]:
        """A class with the keys of all variants; if variants share a key, the first definition is
        used."""
        fields = {
            name: (field.annotation, field)
            for cls in reversed(self.classes.values())
            for name, field in cls.model_fields.items()
        }
        return create_model("AnyVariant", __base__=Section, **fields)  # type: ignore[call-overload,no-any-return]

    def key_and_variant(self, values: Mapping[str, Any]) -> tuple[str, Any]:
        """Return the key that selects the variant, and its value (None if the key is not set).

        The key is the ``discriminator`` of a variant if ``values`` contains it, otherwise
        ``self.key``.
        """
        keys = (cls.discriminator for cls in self.classes.values() if cls.discriminator in values)
        key = next(keys, self.key)
        return key, values.get(key)

    def selected_class(self, values: Mapping[str, Any]) -> type[S] | None:
        """Return the class that unvalidated values select; None if they select no variant."""
        key, variant = self.key_and_variant(values)
        cls = self.class_of(variant)
        return cls if cls is not None and (cls.discriminator or self.key) == key else None

    def class_of(self, variant: object) -> type[S] | None:
        """Return the class of a variant; None if the variant is unknown.

        For example, the variant ``timm:resnet18`` has the class of ``timm:NAME``.
        """
        if not isinstance(variant, str):
            return None
        prefix = f"{variant.partition(':')[0]}:NAME"
        name = variant if ":" not in variant else prefix if prefix in self.classes else CUSTOM
        return self.classes.get(name)


@cache
def variant_union(section: str) -> VariantUnion[Section]:
    """Return the variants of a section as a union."""
    return VariantUnion(KEYS[section], variants(section))


@cache
def variants(section: str) -> dict[str, type[Section]]:
    """Return a dict of all variants of a section: name -> class."""
    by_name: dict[str, type[Section]] = {}
    for name in MODULES:
        for cls in vars(import_module(name)).values():
            if isinstance(cls, type) and issubclass(cls, BASES[section]) and cls.__module__ == name:
                field = cls.model_fields.get(cls.discriminator or KEYS[section])
                names = cls.aliases or (() if field is None else get_args(field.annotation))
                for variant in names:
                    if by_name.setdefault(variant, cls) is not cls:
                        raise ValueError(
                            f"{section}: {cls} and {by_name[variant]} are both named {variant}"
                        )
    return by_name


def with_default_variant(
    section: str, values: dict[str, Any], default: str | None
) -> dict[str, Any]:
    """Return the values of a section; add the default variant if they select none.

    A variant name that an installed package has registered is replaced by its import path
    ``module:name``.
    """
    union = variant_union(section)
    key, variant = union.key_and_variant(values)
    if variant is None:
        return values if default is None else {key: default, **values}
    if key in ENTRY_POINTS and isinstance(variant, str) and union.class_of(variant) is None:
        return {**values, key: entry_point_targets(ENTRY_POINTS[key]).get(variant, variant)}
    return values


def load_implementation(section: Section) -> Any:
    """Import and return the implementation of a section's variant."""
    module, _, name = type(section).import_path.partition(":")
    return getattr(import_module(module), name)
