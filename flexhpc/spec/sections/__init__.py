"""The sections of a sweep spec as frozen, typed classes. The field docs are the documentation.

A section has one class per variant (``data.source``, ``model.family``, ``training.optimizer``,
``search.policy``), so that a key which has no effect for the variant is an error, not a surprise.

Rule for later versions: a new field that changes results must default to ``None`` meaning "as
before", because ``None`` is left out of the canonical JSON and so keeps the ids of old points.
"""

from __future__ import annotations

from flexhpc.spec.sections.base import Section
from flexhpc.spec.sections.data import Data, Digits, Gaussian, ImageFolder, ImageSet
from flexhpc.spec.sections.model import Cnn, Linear, Mlp, Model, Resnet, Timm, Vit
from flexhpc.spec.sections.search import Bisection, Growth, Search
from flexhpc.spec.sections.training import (
    Adam,
    AdamW,
    Gates,
    Gd,
    GradientGate,
    PlateauGate,
    Sgd,
    Training,
)

BASES: dict[str, type[Section]] = {
    "data": Data,
    "model": Model,
    "training": Training,
    "search": Search,
}
"""What all variants of a section share."""

SECTIONS: dict[str, tuple[str, dict[str, type[Section]]]] = {
    "data": (
        "source",
        {
            "digits": Digits,
            "mnist": ImageSet,
            "fashion_mnist": ImageSet,
            "cifar10": ImageSet,
            "cifar100": ImageSet,
            "image_folder": ImageFolder,
            "gaussian": Gaussian,
        },
    ),
    "model": (
        "family",
        {
            "linear": Linear,
            "mlp": Mlp,
            "cnn": Cnn,
            "vit": Vit,
            "resnet": Resnet,
            "timm:NAME": Timm,
        },
    ),
    "training": ("optimizer", {"sgd": Sgd, "gd": Gd, "adam": Adam, "adamw": AdamW}),
    "search": ("policy", {"growth": Growth, "bisection": Bisection}),
}
"""Per section of a spec: the key that picks the variant, and its variants."""

DEFAULT_VARIANT = {"data": "digits", "training": "adam", "search": "bisection"}
"""Variant of a section where the spec does not say."""

__all__ = [
    "BASES",
    "DEFAULT_VARIANT",
    "SECTIONS",
    "Adam",
    "AdamW",
    "Bisection",
    "Cnn",
    "Data",
    "Digits",
    "Gates",
    "Gaussian",
    "Gd",
    "GradientGate",
    "Growth",
    "ImageFolder",
    "ImageSet",
    "Linear",
    "Mlp",
    "Model",
    "PlateauGate",
    "Resnet",
    "Search",
    "Section",
    "Sgd",
    "Timm",
    "Training",
    "Vit",
]
