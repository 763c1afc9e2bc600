"""Small sections of every registered optimizer and model family."""

from __future__ import annotations

from typing import Any, get_args

from flexhpc.config.sections.base import Section
from flexhpc.config.sections.model import Network, Sized
from flexhpc.config.sections.training import MiniBatches, Training
from flexhpc.config.variants import variants

OPTIMIZERS: dict[str, type[Training]] = {
    name: cls for name, cls in variants("training").items() if issubclass(cls, Training)
}
FAMILIES: dict[str, type[Network]] = {
    name: cls
    for name, cls in variants("model").items()
    if issubclass(cls, Network) and not cls.aliases
}
"""All families except ``timm:NAME`` and custom models."""


def optimizer(name: str, **keys: object) -> Training:
    """Return the section of an optimizer; batches have 32 samples."""
    cls = OPTIMIZERS[name]
    batches: dict[str, Any] = {"batch_size": 32} if issubclass(cls, MiniBatches) else {}
    return cls.model_validate({"optimizer": name, **batches, **keys})


def small_network(family: str, **keys: object) -> Network:
    """Return the section of a network of width 24 and depth 2; keys that are None are not set."""
    cls = FAMILIES[family]
    size: dict[str, Any] = {"width": 24, "depth": 2} if issubclass(cls, Sized) else {}
    values = {"family": family, **size, **keys}
    return cls.model_validate({key: x for key, x in values.items() if x is not None})


def choices(cls: type[Section], key: str) -> tuple[Any, ...]:
    """Return the values of a ``Literal`` key; ``(None,)`` if the section does not have the key."""
    field = cls.model_fields.get(key)
    return (None,) if field is None else get_args(field.annotation)
