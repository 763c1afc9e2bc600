"""Which variants each section of a spec has, found by the classes themselves.

A variant is one class: the annotation of its deciding key (``optimizer: Literal["adam"]``) says
what it is called, ``does`` what does it. That may lie in a room above this one, so it is imported
by name and only when it is needed: reading a spec imports no torch.
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
"""Where variants are, in the order of lists. One more module is one more line."""
BASES: dict[str, type[Section]] = {
    "data": Data,
    "model": Model,
    "training": Procedure,
    "search": Search,
}
"""What all variants of a section share."""
KEYS = {"data": "source", "model": "family", "training": "optimizer", "search": "policy"}
"""The key that picks the variant."""
OTHER_KEYS = {"training": "trainer"}
"""Another one that picks a variant of the user's own."""
OFFERED = {("data", "source"): "data", ("model", "family"): "models",
           ("training", "trainer"): "trainers"}  # fmt: skip
"""Where packages offer more of them under a name: the kind of their entry points."""
DEFAULT_VARIANT = {"data": "digits", "training": "adam", "search": "bayes"}
"""Variant of a section where the spec does not say."""


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
    """Return the key that picks a variant."""
    return cls.decided_by or KEYS[section]


def _names(cls: type[Section], key: str) -> tuple[str, ...]:
    if cls.called:
        return cls.called
    field = cls.model_fields.get(key)
    annotation = field.annotation if field else None
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def implementation(section: Section) -> Any:
    """Import what does what a section says."""
    module, _, name = type(section).does.partition(":")
    return getattr(import_module(module), name)
