"""The sections of a sweep spec as frozen, typed classes. The field docs are the documentation.

A section has one class per variant (``data.source``, ``model.family``, ``training.optimizer``,
``search.policy``), so that a key which has no effect for the variant is an error, not a surprise.

Rule for later versions: a new field that changes results must default to ``None`` meaning "as
before", because ``None`` is left out of the canonical JSON and so keeps the ids of old points.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeGuard

from pydantic import BaseModel, ConfigDict, Field, model_validator

Activation = Literal["relu", "leaky_relu", "tanh", "identity", "gelu"]
Count = Annotated[int, Field(ge=1, le=10**12)]
Rate = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Decay = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]


class Section(BaseModel):
    """Base of every section: frozen, strict, no unknown keys, documented by its fields."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )
    where_only: ClassVar[frozenset[str]] = frozenset()
    """Fields that say where something lies and cannot change a result; not part of the id."""

    @classmethod
    def clashes(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield (dotted key, what is wrong) for given keys that do not go together.

        Sees the values as the user gave them, whatever their types, so that these errors come
        together with all others.
        """
        yield from ()


class Data(Section):
    """Which samples there are, and how they are labelled."""

    where_only: ClassVar[frozenset[str]] = frozenset({"root"})
    source: str
    """Where the samples come from."""
    labels: Literal["original", "random"] = "original"
    """`original`: the data set's own labels. `random`: uniform, drawn once per seed and sample."""
    n_max: Count | None = None
    """Largest n that is tried (samples); by default the whole training set."""
    subset: Literal["fresh", "nested"] = "fresh"
    """`fresh`: an independent subset per probe. `nested`: prefixes of one permutation per seed."""
    conflicts: Literal["report", "drop"] = "report"
    """Identical inputs with different labels: `report` them, or `drop` all but the majority."""


class Digits(Data):
    """The 1,797 8x8 digits that ship with scikit-learn."""

    source: Literal["digits"]


class ImageSet(Data):
    """A well-known image set, read from the layouts that users already have."""

    source: Literal["mnist", "fashion_mnist", "cifar10", "cifar100"]
    root: str | None = None
    """Folder of your copy; by default $FLEXHPC_DATA, ./data and the system's are searched."""


class ImageFolder(Data):
    """Images in ROOT/[train/]CLASS/*, all of one size."""

    source: Literal["image_folder"]
    root: str
    """Folder that holds train/CLASS/ or CLASS/ folders."""
    name: str | None = None
    """Tells two image folders of one sweep apart, as `root` is no part of a point's identity."""


class Gaussian(Data):
    """Standard-normal inputs. Original labels come from a random linear teacher."""

    source: Literal["gaussian"]
    dims: Count = 100
    """Number of features."""
    classes: Annotated[int, Field(ge=2, le=10**6)] = 2
    """Number of classes."""
    size: Count = 10_000
    """Number of samples in the training set."""


class Model(Section):
    """What is trained."""

    family: str
    """Kind of network."""


class Linear(Model):
    """One linear layer from the flattened input to the classes."""

    family: Literal["linear"]
    bias: bool = True
    """Whether the layer has a bias."""


class _Plain(Model):
    width: Count
    """Units of every hidden layer (mlp), or channels of the first layer (cnn)."""
    activation: Activation = "relu"
    """Nonlinearity; the initialisation uses its gain."""
    bias: bool = True
    """Whether layers have biases."""
    norm: Literal["none", "batch", "layer"] = "none"
    """Normalisation before each activation."""


class Mlp(_Plain):
    """`depth` hidden layers of `width` units."""

    family: Literal["mlp"]
    depth: Annotated[int, Field(ge=0, le=1000)] = 2
    """Number of hidden layers."""


class Cnn(_Plain):
    """`depth` strided 3x3 convolutions, doubling the channels, then global average pooling."""

    family: Literal["cnn"]
    depth: Annotated[int, Field(ge=1, le=12)] = 3
    """Number of convolutions."""


class Vit(Model):
    """timm's VisionTransformer."""

    family: Literal["vit"]
    width: Count
    """Embedding size; a multiple of `heads`."""
    depth: Annotated[int, Field(ge=1, le=1000)] = 6
    """Number of transformer blocks."""
    heads: Annotated[int, Field(ge=1, le=1000)] = 3
    """Attention heads."""
    patch: Annotated[int, Field(ge=1, le=1000)] = 4
    """Side of a patch in pixels; divides the image's sides."""
    activation: Activation = "gelu"
    """Nonlinearity of the blocks' MLPs."""

    @classmethod
    def clashes(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:  # noqa: D102
        width, heads = values.get("width"), values.get("heads", cls.model_fields["heads"].default)
        if _positive(width) and _positive(heads) and width % heads:
            near = max(1, width // heads) * heads
            yield "width", f"{width} is not a multiple of heads {heads}, which split it; use {near}"


class Resnet(Model):
    """timm's ResNet of basic blocks in up to four stages, with a 3x3 stem."""

    family: Literal["resnet"]
    width: Annotated[int, Field(ge=2, le=10**6, multiple_of=2)]
    """Channels of the first stage, doubled at each stage; even."""
    depth: Annotated[int, Field(ge=2, le=1000)] = 8
    """Number of residual blocks, spread evenly over the stages."""
    activation: Activation = "relu"
    """Nonlinearity."""


class Timm(Model):
    """Any model of timm, untrained, by its name."""

    family: Annotated[str, Field(pattern=r"^timm:[A-Za-z0-9_.]+$")]
    kwargs: dict[str, Any] = {}
    """Passed to timm.create_model."""


class PlateauGate(Section):
    """Has training stopped improving? Also decides when a hopeless probe may stop early."""

    mode: Literal["off", "report"] = "report"
    """`report`: record the reading, stop at a plateau. `off`: train to the end of the budget."""
    patience: Count = 50
    """Epochs without improvement that make a plateau."""
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 1e-3
    """Relative fall of the lowest training loss that counts as an improvement."""


class GradientGate(Section):
    """Is the gradient of the whole subset's loss small at the end?"""

    mode: Literal["off", "report"] = "report"
    """`report`: record the gradient's norm at the end of each probe. `off`: save that pass."""


class Gates(Section):
    """Convergence checks. Each may be written as its mode alone: `plateau: off`."""

    plateau: PlateauGate = PlateauGate()
    """Plateau of the training loss."""
    gradient: GradientGate = GradientGate()
    """Norm of the gradient."""


class Training(Section):
    """The procedure that one probe follows from scratch."""

    optimizer: str
    """Update rule."""
    epochs: Count | None = None
    """Budget in passes over the subset; 500 if neither `epochs` nor `steps` is given."""
    steps: Count | None = None
    """Budget in parameter updates, instead of `epochs`."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate over the budget: constant, or one cosine to zero."""
    precision: Literal["fp32", "bf16", "fp64"] = "fp32"
    """Arithmetic of the forward and backward pass (bf16: autocast, weights stay fp32)."""
    weight_decay: Decay = 0.0
    """L2 penalty (sgd, gd, adam) or decoupled decay (adamw)."""
    gates: Gates = Gates()
    """Convergence checks."""

    @model_validator(mode="before")
    @classmethod
    def _default_budget(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("epochs") is None and value.get("steps") is None:
            return {**value, "epochs": 500}
        return value

    @classmethod
    def clashes(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:  # noqa: D102
        epochs, steps, gates = (values.get(key) for key in ("epochs", "steps", "gates"))
        if epochs is not None and steps is not None:
            yield "steps", "epochs and steps are two budgets; keep one of them"
        plateau = gates.get("plateau") if isinstance(gates, dict) else None
        if isinstance(plateau, dict) and plateau.get("mode", "report") == "report":
            patience = plateau.get("patience")
            if _positive(patience) and _positive(epochs) and patience >= epochs:
                what = f"{patience} epochs have no effect within a budget of {epochs}"
                yield "gates.plateau.patience", f"{what}; use a smaller patience, or plateau: off"


class Sgd(Training):
    """Stochastic gradient descent on mini-batches."""

    optimizer: Literal["sgd"]
    lr: Rate = 0.05
    """Learning rate."""
    momentum: Fraction = 0.9
    """Heavy-ball momentum."""
    batch_size: Count = 128
    """Global batch; an epoch is cut into near-equal batches of at most this many samples."""


class Gd(Training):
    """Exact full-batch gradient descent: the mean gradient of the whole subset per update."""

    optimizer: Literal["gd"]
    lr: Rate = 0.1
    """Learning rate."""
    momentum: Fraction = 0.0
    """Heavy-ball momentum."""


class Adam(Training):
    """Adam."""

    optimizer: Literal["adam"]
    lr: Rate = 1e-3
    """Learning rate."""
    batch_size: Count = 128
    """Global batch; an epoch is cut into near-equal batches of at most this many samples."""


class AdamW(Adam):
    """Adam with decoupled weight decay."""

    optimizer: Literal["adamw"]  # type: ignore[assignment]
    weight_decay: Decay = 0.01
    """Decoupled weight decay."""


class Search(Section):
    """How the next n is chosen, and what is estimated."""

    policy: str
    """Rule that chooses the next n."""
    start: Count = 64
    """First n that is tried (samples)."""
    seeds_per_n: Annotated[int, Field(ge=1, le=1000)] = 1
    """Probes at one n; n fits when at least half of them fit."""
    max_cost: Count | None = None
    """Cap on the point's cost (sample passes): no new probe starts beyond it."""


class Bisection(Search):
    """Double until a failure, then bisect in log n."""

    policy: Literal["bisection"]
    tolerance: Annotated[float, Field(gt=0, le=10)] = 0.05
    """Relative width of the bracket at which the search ends."""
    estimand: Literal["n50"] = "n50"
    """What is estimated: the n at which half of the trainings fit."""


class Growth(Search):
    """The paper's rule: raise n until the first failure."""

    policy: Literal["growth"]
    growth: int | float = 1.25
    """A whole number is a step in samples, a number with a point a factor (write 2.0 to double)."""
    estimand: Literal["last_fit"] = "last_fit"
    """What is estimated: the last n before the first failure."""

    @classmethod
    def clashes(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:  # noqa: D102
        growth = values.get("growth")
        if isinstance(growth, float) and not 1 < growth <= 1000:
            yield "growth", f"a factor must lie above 1, not {growth:g}"
        elif isinstance(growth, int) and not 1 <= growth <= 10**9:
            yield "growth", f"a step must be at least 1 sample, not {growth}"


def _positive(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and value > 0


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
