"""The ``training`` section: the procedure that one probe follows from scratch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from flexhpc.config.sections.base import (
    LATER,
    NUISANCE,
    Count,
    Decay,
    Fraction,
    Rate,
    Section,
    Since,
    positive,
)
from flexhpc.config.sections.gates import Gates

BUDGETS = ("epochs", "steps", "gradient_evaluations", "until")
DEFAULT_EPOCHS = 500


class Sam(Section):
    """Sharpness-aware minimization (Foret et al. 2021, arXiv 2010.01412): the gradient is taken
    where the loss is worst nearby. Two gradients, and so twice the cost, per update."""

    rho: Annotated[Rate, NUISANCE] = 0.05
    """Radius of the neighbourhood."""


class Procedure(Section):
    """What one probe follows from scratch: its budget, and whatever else leads to its fit."""

    with_mup: ClassVar[bool] = False
    """Whether it takes the rates of layers that ``model.init: mup`` sets."""
    for_matrices: ClassVar[bool] = False
    """Whether its rule is one for matrices, and vectors get another."""

    if TYPE_CHECKING:  # a field of every variant, each with a default of its own
        epochs: Count | None

    steps: Count | None = None
    """Budget in parameter updates, instead of `epochs`."""
    gradient_evaluations: Count | None = None
    """Budget in gradients of single samples, instead of `epochs`: an epoch takes n of them, with
    SAM twice as many."""

    @property
    def rejects(self) -> bool:
        """Whether it may refuse to count a probe."""
        return False

    @classmethod
    def clashes(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """See :meth:`Section.clashes`."""
        yield from super().clashes(values)
        budgets = [key for key in BUDGETS if values.get(key) is not None]
        for key in budgets[1:]:
            yield key, f"{budgets[0]} and {key} are two budgets; keep one of them"


class Training(Procedure):
    """The training of a network by gradients.

    ``does`` names a function (section, list of parameters) -> torch.optim.Optimizer. Before every
    update the rate of each of its ``param_groups`` is set, to that of the schedule times the
    group's ``lr_factor`` (1 where it has none).
    """

    full_batch: ClassVar[bool] = False
    """Whether an update takes the gradient of the whole subset."""
    elementwise: ClassVar[bool] = False
    """Whether an update treats every weight by itself, wherever in memory it lies."""

    if TYPE_CHECKING:  # a field of every variant, each with a default of its own
        lr: Rate

    optimizer: str
    """Update rule."""
    until: Literal["convergence"] | None = None
    """No budget, instead of `epochs`: trains until the plateau gate says that it stopped
    improving."""
    epochs: Count | None = Field(
        default_factory=lambda given: (
            None if any(given.get(key) for key in BUDGETS[1:]) else DEFAULT_EPOCHS
        )
    )
    """Budget in passes over the subset."""
    unconverged: Annotated[Literal["report", "extend"], LATER] = "report"
    """What becomes of a probe that still improves when its budget ends. `extend`: it trains on,
    with twice the budget each time, up to `extend_to` times the first one."""
    extend_to: Annotated[float, Field(gt=1, le=1e6), LATER] = 8.0
    """Cap of an extended budget, as a multiple of the first one."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate over the budget: constant, or one cosine to zero."""
    warmup: Annotated[Count | None, NUISANCE] = None
    """Updates over which the learning rate rises linearly to what the schedule says."""
    precision: Literal["fp32", "bf16", "fp64"] = "fp32"
    """Arithmetic of the forward and backward pass (bf16: autocast, weights stay fp32)."""
    weight_decay: Annotated[Decay, NUISANCE] = 0.0
    """L2 penalty (sgd, gd, adam, shampoo) or decoupled decay (adamw, soap, muon)."""
    label_smoothing: Annotated[Fraction, LATER, NUISANCE] = 0.0
    """Share of each label that is spread over all classes, in the loss that is trained only."""
    clip_norm: Annotated[Rate | None, NUISANCE] = None
    """Largest norm of the gradient; a longer one is shortened to it."""
    sam: Sam | None = None
    """Sharpness-aware minimization around the update rule."""
    gates: Gates = Gates()
    """Convergence checks."""
    curves: Annotated[Literal["batches", "looks"], Since(version=3, before="looks")] = "batches"
    """What the loss and the errors of an epoch are, by which plateaus and stability are judged.
    `batches`: of the epoch's own batches, each before its update, as a training loop prints them.
    `looks`: of the whole subset after the epoch, in eval mode; slower. Both ask after every epoch
    whether all samples fit; for `batches` the first miss answers it."""
    shards: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Parts of each batch whose gradients are taken one by one and added in order: the same bits on
    any number of processes. By default each process takes one part, with equal results but for
    rounding."""

    @property
    def rejects(self) -> bool:
        """Whether a gate may refuse a probe."""
        return any(gate.mode == "reject" for gate in vars(self.gates).values())

    @classmethod
    def clashes(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """See :meth:`Section.clashes`."""
        yield from super().clashes(values)
        given = any(values.get(key) is not None for key in BUDGETS)
        epochs = values.get("epochs") if given else DEFAULT_EPOCHS
        gates = values.get("gates")
        yield from Gates.clashes(gates if isinstance(gates, dict) else {}, epochs)
        yield from cls._without_plateau(values)
        if "extend_to" in values and values.get("unconverged") != "extend":
            yield "extend_to", "has no effect without unconverged: extend; leave it out"

    @classmethod
    def _without_plateau(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield what cannot be without a rule that says when training stopped improving."""
        gates = values.get("gates")
        plateau = gates.get("plateau") if isinstance(gates, dict) else None
        off = isinstance(plateau, dict) and plateau.get("mode") == "off"
        cosine = values.get("schedule") == "cosine"
        for key, wanted in (("until", "convergence"), ("unconverged", "extend")):
            if values.get(key) == wanted and off:
                yield key, f"{wanted} goes by the plateau gate; do not turn it off"
            if values.get(key) == wanted and cosine:
                yield key, f"{wanted} has no end known ahead, as schedule: cosine needs"
        if values.get("until") == "convergence":
            if values.get("unconverged") == "extend":
                yield "unconverged", "has no effect with until: convergence; leave it out"
            if isinstance(plateau, dict) and plateau.get("mode") == "reject":
                what = "reject has no effect with until: convergence, which ends at a plateau"
                yield "gates.plateau", f"{what}; leave it out"
        warmup, steps = values.get("warmup"), values.get("steps")
        if positive(warmup) and positive(steps) and warmup >= steps:
            yield "warmup", f"{warmup} updates never end within {steps} steps; use fewer"


class Sgd(Training):
    """Stochastic gradient descent on mini-batches."""

    does: ClassVar[str] = "flexhpc.training.optimizers:sgd"
    elementwise: ClassVar[bool] = True
    with_mup: ClassVar[bool] = True

    optimizer: Literal["sgd"]
    lr: Annotated[Rate, NUISANCE] = 0.05
    """Learning rate."""
    momentum: Annotated[Fraction, NUISANCE] = 0.9
    """Heavy-ball momentum."""
    batch_size: Annotated[Count, NUISANCE] = 128
    """Global batch; an epoch is cut into batches of at most this many samples."""
    batches: Annotated[Literal["near_equal", "tail"], LATER] = "near_equal"
    """How an epoch is cut. `near_equal`: into the fewest batches, equal to within one sample.
    `tail`: full batches and what is left, as a plain DataLoader does; whether n samples fit then
    depends on n modulo the batch size."""


class Gd(Training):
    """Exact full-batch gradient descent: the mean gradient of the whole subset per update."""

    does: ClassVar[str] = "flexhpc.training.optimizers:sgd"
    elementwise: ClassVar[bool] = True
    full_batch: ClassVar[bool] = True
    with_mup: ClassVar[bool] = True

    optimizer: Literal["gd"]
    lr: Annotated[Rate, NUISANCE] = 0.1
    """Learning rate."""
    momentum: Annotated[Fraction, NUISANCE] = 0.0
    """Heavy-ball momentum."""


class Adaptive(Training):
    """What all optimizers that scale each direction share."""

    lr: Annotated[Rate, NUISANCE] = 1e-3
    """Learning rate."""
    batch_size: Annotated[Count, NUISANCE] = 128
    """Global batch; an epoch is cut into batches of at most this many samples."""
    batches: Annotated[Literal["near_equal", "tail"], LATER] = "near_equal"
    """How an epoch is cut. `near_equal`: into the fewest batches, equal to within one sample.
    `tail`: full batches and what is left, as a plain DataLoader does; whether n samples fit then
    depends on n modulo the batch size."""


class Adam(Adaptive):
    """Adam."""

    does: ClassVar[str] = "flexhpc.training.optimizers:adam"
    elementwise: ClassVar[bool] = True
    with_mup: ClassVar[bool] = True

    optimizer: Literal["adam"]


class AdamW(Adaptive):
    """Adam with decoupled weight decay."""

    does: ClassVar[str] = "flexhpc.training.optimizers:adamw"
    elementwise: ClassVar[bool] = True
    with_mup: ClassVar[bool] = True

    optimizer: Literal["adamw"]
    weight_decay: Annotated[Decay, NUISANCE] = 0.01
    """Decoupled weight decay."""


class Shampoo(Adaptive):
    """Shampoo (Gupta et al. 2018, arXiv 1802.09568)."""

    does: ClassVar[str] = "flexhpc.training.optimizers:shampoo"

    optimizer: Literal["shampoo"]
    lr: Annotated[Rate, NUISANCE] = 0.3
    """Learning rate."""


class Soap(Adaptive):
    """SOAP: Adam in the eigenbasis of Shampoo's preconditioner (arXiv 2409.11321)."""

    does: ClassVar[str] = "flexhpc.training.optimizers:soap"

    optimizer: Literal["soap"]
    lr: Annotated[Rate, NUISANCE] = 3e-3
    """Learning rate."""


class Muon(Adaptive):
    """Muon: orthogonalised momentum for matrices (kellerjordan.github.io/posts/muon), AdamW for the
    rest."""

    does: ClassVar[str] = "flexhpc.training.optimizers:muon"
    for_matrices: ClassVar[bool] = True

    optimizer: Literal["muon"]
    lr: Annotated[Rate, NUISANCE] = 0.02
    """Learning rate of matrices; the rest takes a tenth of it."""
