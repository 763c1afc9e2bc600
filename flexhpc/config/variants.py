"""Registry of the variants of each section, collected from their classes.

A variant is one class: the annotation of its deciding key (``optimizer: Literal["adam"]``) gives
its name, and ``does`` the import path of its implementation. The implementation may be in a package
that imports this one, so it is imported by name and only when it is needed: reading a spec does not
import torch.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any, Literal, get_args, get_origin

from flexhpc.config.sections.base import Section
from flexhpc.config.sections.data import Data
from flexhpc.config.sections.model import Model
from flexhpc.config.sections.search import Search
from flexhpc.config.sections.training import Procedure

MODULES = [
    "flexhpc.config.sections.data",
    "flexhpc.config.sections.files",
    "flexhpc.config.sections.model",
    "flexhpc.config.sections.training",
    "flexhpc.config.sections.search",
    "flexhpc.config.sections.custom",
]
"""Modules with variants, in the order of lists. Add a module here to register its variants."""
BASES: dict[str, type[Section]] = {
    "data": Data,
    "model": Model,
    "training": Procedure,
    "search": Search,
}
"""Base class of all variants of a section."""
KEYS = {"data": "source", "model": "family", "training": "optimizer", "search": "policy"}
"""Key that selects the variant."""
OTHER_KEYS = {"training": "trainer"}
"""Key that selects a custom variant instead."""
OFFERED = {("data", "source"): "data", ("model", "family"): "models",
           ("training", "trainer"): "trainers"}  # fmt: skip
"""Entry-point groups through which packages register more variants, by section and key."""
DEFAULT_VARIANT = {"data": "digits", "training": "adam", "search": "bayes"}
"""Variant of a section if the spec does not choose one."""


@cache
def variants(section: str) -> dict[str, type[Section]]:
    """Return the variants of a section by name."""
    by_name: dict[str, type[Section]] = {}
    for name in MODULES:
        for cls in vars(import_module(name)).values():
            if isinstance(cls, type) and issubclass(cls, BASES[section]) and cls.__module__ == name:
                by_name |= dict.fromkeys(_names(cls, deciding_key(section, cls)), cls)
    return by_name


def deciding_key(section: str, cls: type[Section]) -> str:
    """Return the key that selects a variant."""
    return cls.decided_by or KEYS[section]


def _names(cls: type[Section], key: str) -> tuple[str, ...]:
    if cls.called:
        return cls.called
    field = cls.model_fields.get(key)
    annotation = field.annotation if field else None
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def implementation(section: Section) -> Any:
    """Import the implementation of a section's variant."""
    module, _, name = type(section).does.partition(":")
    return getattr(import_module(module), name)
