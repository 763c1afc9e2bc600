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
from typing import Annotated, Any, Generic, Literal, TypeVar, Union, get_args, get_origin

from pydantic import Discriminator, Tag, TypeAdapter, create_model

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
    """The variants of a section: a union of classes that is discriminated by a key.

    Attributes:
        key: the key that selects the variant.
        classes: name of a variant -> its class.
    """

    key: str
    classes: dict[str, type[S]]

    @cached_property
    def union(self) -> Any:
        """The union as a pydantic type."""
        tagged = tuple(Annotated[cls, Tag(name)] for name, cls in self.classes.items())
        return Annotated[Union[tagged], Discriminator(self.selected_name)]  # noqa: UP007

    @cached_property
    def adapter(self) -> TypeAdapter[S]:
        """The pydantic adapter that validates values and returns the selected variant."""
        return TypeAdapter(self.union)

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

    def selected_name(self, values: Any) -> str | None:
        """Return the key of ``classes`` that the values select; None if they select no variant."""
        if not isinstance(values, Mapping):
            return None
        key, variant = self.key_and_variant(values)
        name = self.class_name(variant)
        return name if name and (self.classes[name].discriminator or self.key) == key else None

    def class_name(self, variant: object) -> str | None:
        """Return the key of ``classes`` that matches a variant; None if the variant is unknown.

        For example, ``timm:NAME`` matches the variant ``timm:resnet18``.
        """
        if not isinstance(variant, str):
            return None
        prefix = f"{variant.partition(':')[0]}:NAME"
        name = variant if ":" not in variant else prefix if prefix in self.classes else CUSTOM
        return name if name in self.classes else None

    def selected_class(self, values: Mapping[str, Any]) -> type[S] | None:
        """Return the class that unvalidated values select; None if they select no variant."""
        name = self.selected_name(values)
        return None if name is None else self.classes[name]


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
                for variant in _variant_names(cls, cls.discriminator or KEYS[section]):
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
    if key in ENTRY_POINTS and isinstance(variant, str) and union.class_name(variant) is None:
        return {**values, key: entry_point_targets(ENTRY_POINTS[key]).get(variant, variant)}
    return values


def _variant_names(cls: type[Section], key: str) -> tuple[str, ...]:
    if cls.aliases:
        return cls.aliases
    field = cls.model_fields.get(key)
    annotation = field.annotation if field else None
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def load_implementation(section: Section) -> Any:
    """Import and return the implementation of a section's variant."""
    module, _, name = type(section).import_path.partition(":")
    return getattr(import_module(module), name)
