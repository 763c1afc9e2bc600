"""The sections of a sweep spec as frozen, typed classes. The field docs are the documentation.

A section has one class per variant (``data.source``, ``model.family``, ``training.optimizer``,
``search.policy``), so that a key which has no effect for the variant is an error, not a surprise.

Rule for later versions: a new field whose default means "as before" is ``None`` or marked
``LATER``: both are left out of the canonical JSON, which keeps the ids of old points. One whose
default changes results is marked ``Since``, with a new ``HASH_VERSION`` and what points did before.
"""

from __future__ import annotations

from flexhpc.spec.sections.base import Section
from flexhpc.spec.sections.data import (
    Data,
    Digits,
    Gaussian,
    ImageFolder,
    Images,
    ImageSet,
    KnownTable,
    Table,
)
from flexhpc.spec.sections.evaluate import Evaluate
from flexhpc.spec.sections.gates import (
    CurvatureGate,
    Gates,
    GradientGate,
    PlateauGate,
    StabilityGate,
)
from flexhpc.spec.sections.model import (
    Cnn,
    Efficientnet,
    Initialised,
    Linear,
    LowRank,
    Mixer,
    Mlp,
    Model,
    Quantised,
    Resnet,
    Sized,
    Subspace,
    Timm,
    Vit,
)
from flexhpc.spec.sections.search import Bayes, Bisection, Growth, Level, Search, Walk
from flexhpc.spec.sections.training import (
    Adam,
    AdamW,
    Gd,
    Muon,
    Sam,
    Sgd,
    Shampoo,
    Soap,
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
            "cifar5m": ImageSet,
            "image_folder": ImageFolder,
            "covtype": KnownTable,
            "adult": KnownTable,
            "credit": KnownTable,
            "table": Table,
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
            "efficientnet": Efficientnet,
            "mixer": Mixer,
            "timm:NAME": Timm,
        },
    ),
    "training": (
        "optimizer",
        {
            "sgd": Sgd,
            "gd": Gd,
            "adam": Adam,
            "adamw": AdamW,
            "shampoo": Shampoo,
            "soap": Soap,
            "muon": Muon,
        },
    ),
    "search": ("policy", {"bayes": Bayes, "bisection": Bisection, "growth": Growth}),
}
"""Per section of a spec: the key that picks the variant, and its variants."""

DEFAULT_VARIANT = {"data": "digits", "training": "adam", "search": "bayes"}
"""Variant of a section where the spec does not say."""

__all__ = [
    "BASES",
    "DEFAULT_VARIANT",
    "SECTIONS",
    "Adam",
    "AdamW",
    "Bayes",
    "Bisection",
    "Cnn",
    "CurvatureGate",
    "Data",
    "Digits",
    "Efficientnet",
    "Evaluate",
    "Gates",
    "Gaussian",
    "Gd",
    "GradientGate",
    "Growth",
    "ImageFolder",
    "ImageSet",
    "Images",
    "Initialised",
    "KnownTable",
    "Level",
    "Linear",
    "LowRank",
    "Mixer",
    "Mlp",
    "Model",
    "Muon",
    "PlateauGate",
    "Quantised",
    "Resnet",
    "Sam",
    "Search",
    "Section",
    "Sgd",
    "Shampoo",
    "Sized",
    "Soap",
    "StabilityGate",
    "Subspace",
    "Table",
    "Timm",
    "Training",
    "Vit",
    "Walk",
]
