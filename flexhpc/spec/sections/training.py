"""The ``training`` section: the procedure that one probe follows from scratch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from flexhpc.spec.sections.base import Count, Decay, Fraction, Rate, Section, positive


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

    if TYPE_CHECKING:  # a field of every variant, each with a default of its own
        lr: Rate

    optimizer: str
    """Update rule."""
    steps: Count | None = None
    """Budget in parameter updates, instead of `epochs`."""
    epochs: Count | None = Field(default_factory=lambda given: None if given.get("steps") else 500)
    """Budget in passes over the subset."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate over the budget: constant, or one cosine to zero."""
    precision: Literal["fp32", "bf16", "fp64"] = "fp32"
    """Arithmetic of the forward and backward pass (bf16: autocast, weights stay fp32)."""
    weight_decay: Decay = 0.0
    """L2 penalty (sgd, gd, adam) or decoupled decay (adamw)."""
    gates: Gates = Gates()
    """Convergence checks."""
    shards: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Parts of each batch whose gradients are taken one by one and added in order: the same bits on
    any number of processes. By default each process takes one part, with equal results but for
    rounding."""

    @classmethod
    def clashes(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """See :meth:`Section.clashes`."""
        epochs, steps, gates = (values.get(key) for key in ("epochs", "steps", "gates"))
        if epochs is not None and steps is not None:
            yield "steps", "epochs and steps are two budgets; keep one of them"
        if epochs is None and steps is None:
            epochs = 500
        plateau = gates.get("plateau") if isinstance(gates, dict) else None
        if isinstance(plateau, dict) and plateau.get("mode") == "off":
            for key in ("patience", "tolerance"):
                if key in plateau:
                    yield f"gates.plateau.{key}", "has no effect with plateau: off; leave it out"
        if isinstance(plateau, dict) and plateau.get("mode", "report") == "report":
            patience = plateau.get("patience")
            if positive(patience) and positive(epochs) and patience >= epochs:
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


class Adaptive(Training):
    """What Adam and AdamW share."""

    lr: Rate = 1e-3
    """Learning rate."""
    batch_size: Count = 128
    """Global batch; an epoch is cut into near-equal batches of at most this many samples."""


class Adam(Adaptive):
    """Adam."""

    optimizer: Literal["adam"]


class AdamW(Adaptive):
    """Adam with decoupled weight decay."""

    optimizer: Literal["adamw"]
    weight_decay: Decay = 0.01
    """Decoupled weight decay."""
