"""The ``training`` section: how a probe is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field

from flexhpc.config.sections.base import (
    LIMIT,
    NUISANCE,
    PRECISION,
    Count,
    Fraction,
    NonNegativeNumber,
    PositiveNumber,
    Problems,
    Section,
)
from flexhpc.config.sections.gates import Gates

BUDGETS = ("epochs", "steps", "gradient_evaluations", "until")
FIRST_STEPS = 1000
"""Default first budget with ``until: saturation``, in updates."""
_MAX_BUDGET_FACTOR = 64
"""Default largest budget with ``until: saturation``, as a multiple of the first budget."""


@dataclass(frozen=True, kw_only=True)
class Doubling:
    """Settings for repeated doubling of the budget.

    Attributes:
        saturation: doubling ends when each of the last two doublings raised the EMC by at most this
            factor.
        max_doublings: maximum number of doublings.
        keep_states: maximum number of failed training runs whose final states are kept, so that
            these runs can be continued.
    """

    saturation: float
    max_doublings: int
    keep_states: int = 32


class Sam(Section):
    """Sharpness-aware minimization (Foret et al. 2021, arXiv 2010.01412): the gradient is taken at
    the weights with the highest loss in a neighbourhood of the current weights. Each update needs
    two gradients, so it costs twice as much as without SAM."""

    rho: Annotated[PositiveNumber, NUISANCE] = 0.05
    """Radius of the neighbourhood of the weights in which sharpness-aware minimization searches for
    the highest loss."""


class Procedure(Section):
    """The training procedure of one probe: its budget, and all other settings that determine the
    result."""

    supports_mup: ClassVar[bool] = False
    """Whether the optimizer supports the learning rates per layer that ``model.init: mup`` sets."""
    matrices_only: ClassVar[bool] = False
    """Whether the optimizer's update rule is for matrices only; all other parameters then use a
    different rule."""

    if TYPE_CHECKING:  # a field of every variant, each with its own default
        epochs: Count | None

    steps: Count | None = None
    """Budget in parameter updates, instead of `epochs`."""
    gradient_evaluations: Count | None = None
    """Budget in per-sample gradients, instead of `epochs`. An epoch takes n per-sample gradients,
    or 2 n with SAM."""

    @property
    def can_reject(self) -> bool:
        """Whether any gate can reject a probe. The search ignores rejected probes."""
        return False

    @property
    def budget(self) -> tuple[str, int] | None:
        """Key and value of the budget, such as ``("steps", 1000)``; None without a budget. With
        ``until: saturation``, these are the key and value of the first budget."""
        for key in BUDGETS[:-1]:
            if (value := getattr(self, key)) is not None:
                return key, value
        doubles = getattr(self, "until", None) == "saturation"
        return ("steps", FIRST_STEPS) if doubles else None

    @property
    def extends_smaller_budgets(self) -> bool:
        """Whether a training run begins with the same updates as a run with any smaller budget."""
        return False

    @property
    def doubling_settings(self) -> Doubling | None:
        """Settings for doubling the budget; None if the budget is not doubled."""
        return None

    @property
    def determines_other_budgets(self) -> bool:
        """Whether the training runs of a point also determine its EMC at other budgets."""
        return self.extends_smaller_budgets or self.doubling_settings is not None

    def at_stage(self, stage: int) -> Self:
        """Return the procedure with its budget doubled ``stage`` times.

        The procedure is returned unchanged if its ``doubling_settings`` is None.
        """
        if self.doubling_settings is None or self.budget is None:
            return self
        key, first = self.budget
        return self.model_copy(update={key: first << stage})

    def combination_problems(self) -> Problems:
        yield from super().combination_problems()
        doubles = getattr(self, "until", None) == "saturation"
        keys = BUDGETS[:-1] if doubles else BUDGETS
        budgets = [key for key in keys if getattr(self, key, None) is not None]
        for key in budgets[1:]:
            yield key, f"cannot be combined with {budgets[0]}; remove one of them"


class Training(Procedure):
    """Gradient-based training of a network.

    ``import_path`` names a function that takes the section and the list of parameters, and returns
    a torch.optim.Optimizer. Before every update, the learning rate of each group in the optimizer's
    ``param_groups`` is set to the learning rate of the schedule times the group's ``lr_factor`` (by
    default 1).
    """

    full_batch: ClassVar[bool] = False
    """Whether an update uses the gradient of the whole subset."""
    elementwise: ClassVar[bool] = False
    """Whether an update treats every weight independently, and therefore works with any memory
    format."""

    if TYPE_CHECKING:  # a field of every variant, each with its own default
        lr: PositiveNumber

    optimizer: str
    """Optimizer."""
    epochs: Count | None = None
    """Budget in passes over the subset."""
    until: Literal["convergence", "saturation"] | None = Field(
        default_factory=lambda values: (
            None if any(values.get(key) for key in BUDGETS[:-1]) else "saturation"
        )
    )
    """`saturation` (the default if no budget is set): the search doubles the budget and continues
    failed training runs until two doublings in succession hardly raise the EMC. `steps`, `epochs`
    or `gradient_evaluations` sets the first budget; by default it is 1,000 updates. `convergence`:
    training has no budget and ends when the plateau gate detects that training has stopped
    improving."""
    saturation: Annotated[float, Field(gt=1, le=10), PRECISION] = 1.1
    """With `until: saturation`, doubling ends when each of the last two doublings of the budget
    raised the EMC by at most this factor, according to the upper end of a 90 % interval."""
    max_budget: Annotated[Count | None, PRECISION] = None
    """With `until: saturation`, the largest budget, in the unit of the first budget; by default 64
    times the first budget. Below four times the first budget, saturation cannot be detected."""
    keep_states: Annotated[int, Field(ge=0, le=10**6), LIMIT] = 32
    """With `until: saturation`, the maximum number of failed training runs per point whose final
    state (weights and optimizer) is kept. The kept states of a point take at most 4 GiB. A training
    run is continued from its state; without a state, it is repeated if needed."""
    unconverged: Literal["report", "extend"] = "report"
    """Treatment of a failing probe that is still improving when its budget ends. `report`: the
    probe gets the verdict `unconverged`. `extend`: the budget of the probe is doubled repeatedly,
    up to `extend_to` times the initial budget."""
    extend_to: Annotated[float, Field(gt=1, le=1e6)] = 8.0
    """Maximum of an extended budget, as a multiple of the initial budget."""
    schedule: Literal["constant", "cosine", "wsd"] = "constant"
    """Learning rate schedule over the budget. `cosine`: decreases to zero along half a period of a
    cosine. `wsd` (warm-up, stable, decay): constant, then decreases linearly to zero over the last
    tenth of the budget."""
    warmup: Annotated[Count | None, NUISANCE] = None
    """Number of updates over which the learning rate rises linearly to the value of the
    schedule."""
    precision: Literal["fp32", "bf16", "fp64"] = "fp32"
    """Precision of the forward and backward pass. With bf16, torch.autocast is used and the weights
    remain fp32."""
    weight_decay: Annotated[NonNegativeNumber, NUISANCE] = 0.0
    """Weight decay: the factor of an L2 penalty (sgd, gd, adam, shampoo) or of decoupled weight
    decay (adamw, soap, muon)."""
    label_smoothing: Annotated[Fraction, NUISANCE] = 0.0
    """Label smoothing: the fraction of a label's probability that the training loss distributes
    evenly over all classes."""
    clip_norm: Annotated[PositiveNumber | None, NUISANCE] = None
    """Maximum norm of the gradient; a larger gradient is scaled down to this norm."""
    sam: Sam | None = None
    """Sharpness-aware minimization on top of the optimizer."""
    gates: Gates = Gates()
    """Convergence checks."""
    curves: Literal["batches", "evaluation"] = "batches"
    """How the loss and training error of an epoch are computed for the plateau and stability gates.
    `batches`: on each batch before its update, as in most training loops. `evaluation`: on the
    whole subset in eval mode after the epoch, which is slower. In both cases, training checks after
    every epoch whether all samples are fitted. With `batches`, this check starts with a few samples
    that were misclassified recently, and continues with the whole subset only if they are
    fitted."""
    shards: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Number of parts into which each batch is split. The gradients of the parts are computed
    separately and added in a fixed order, so that results are bitwise identical on any number of
    processes. By default, each process computes one part, and results on different numbers of
    processes are equal only up to rounding."""

    @property
    def gradients_per_sample(self) -> int:
        """Number of gradients per sample of a batch: 1, or 2 with SAM."""
        return 1 if self.sam is None else 2

    @property
    def doubling_settings(self) -> Doubling | None:
        """Settings for doubling the budget; None without ``until: saturation``."""
        if self.until != "saturation" or self.budget is None:
            return None
        _, first = self.budget
        last = int(math.log2((self.max_budget or _MAX_BUDGET_FACTOR * first) / first))
        return Doubling(
            saturation=self.saturation, max_doublings=last, keep_states=self.keep_states
        )

    def saturation_conflict(self, setting: str, fix: str) -> tuple[str, str]:
        """Return (key, problem) for a setting that cannot be combined with ``until:
        saturation``."""
        if "until" in self.model_fields_set:
            return "until", f"saturation cannot be combined with {setting}; {fix}"
        problem = f"a budget, such as steps: 1000, is required with {setting}"
        return "steps", f"{problem}; the default, until: saturation, does not support {setting}"

    @property
    def can_reject(self) -> bool:
        """Whether any gate can reject a probe, that is, has the mode ``reject``."""
        return any(gate.mode == "reject" for gate in vars(self.gates).values())

    @property
    def extends_smaller_budgets(self) -> bool:
        """Whether a training run begins with the same updates as a run with any smaller budget.

        True if there is a budget, it is never extended, and it does not affect the learning rate.
        """
        fixed = self.budget is not None and self.unconverged == "report"
        return fixed and self.schedule == "constant"

    def combination_problems(self) -> Problems:
        yield from super().combination_problems()
        plateau = self.gates.plateau
        patience = None if plateau.mode == "off" else plateau.patience
        if patience is not None and self.epochs is not None and patience >= self.epochs:
            problem = f"must be below the budget ({self.epochs} epochs), not {patience}"
            yield "gates.plateau.patience", f"{problem}; use a smaller patience, or plateau: off"
        for key, value in (("until", "convergence"), ("unconverged", "extend")):
            if getattr(self, key) == value and plateau.mode == "off":
                yield key, f"{value} requires the plateau gate; remove plateau: off"
            if getattr(self, key) == value and self.schedule != "constant":
                problem = f"{value} cannot be combined with schedule: {self.schedule}"
                yield key, f"{problem}; remove one of them"
        unit, budget = self.budget or ("", 0)
        if self.until == "saturation":
            if self.schedule == "cosine":
                fix = "use wsd or constant, or set a budget"
                yield self.saturation_conflict("schedule: cosine", fix)
            if self.unconverged == "extend":
                yield self.saturation_conflict("unconverged: extend", "remove one of them")
            if self.max_budget is not None and self.max_budget < 2 * budget:
                problem = f"must be at least twice the first budget ({unit}: {budget})"
                yield "max_budget", f"{problem}, not {self.max_budget}"
        else:
            for key in self.model_fields_set & {"saturation", "max_budget", "keep_states"}:
                yield key, "has no effect without until: saturation; remove it"
        if self.until == "convergence":
            if self.unconverged == "extend":
                yield "unconverged", "has no effect with until: convergence; remove it"
            if plateau.mode == "reject":
                reason = "because training then ends at a plateau"
                problem = f"reject has no effect with until: convergence, {reason}"
                yield "gates.plateau", f"{problem}; remove it"
        if "extend_to" in self.model_fields_set and self.unconverged != "extend":
            yield "extend_to", "has no effect without unconverged: extend; remove it"
        if self.warmup is not None and unit == "steps" and self.warmup >= budget:
            yield "warmup", f"must be below steps ({budget}), not {self.warmup}"


class MiniBatches(Training):
    """Keys of all optimizers that use the gradient of a mini-batch."""

    batch_size: Annotated[Count, NUISANCE] = 128
    """Global batch size; an epoch is split into batches of at most this many samples. For updates
    with all samples, use `optimizer: gd`."""
    batches: Literal["near_equal", "tail"] = "near_equal"
    """How an epoch is split. `near_equal`: into as few batches as possible, with sizes that differ
    by at most one sample. `tail`: into full batches and a smaller last batch, like a plain
    DataLoader; whether n samples can be fitted then depends on n modulo the batch size."""


class Sgd(MiniBatches):
    """Stochastic gradient descent on mini-batches."""

    import_path: ClassVar[str] = "flexhpc.training.optimizers:sgd"
    elementwise: ClassVar[bool] = True
    supports_mup: ClassVar[bool] = True

    optimizer: Literal["sgd"]
    lr: Annotated[PositiveNumber, NUISANCE] = 0.05
    """Learning rate."""
    momentum: Annotated[Fraction, NUISANCE] = 0.9
    """Heavy-ball momentum."""


class Gd(Training):
    """Full-batch gradient descent: each update uses the mean gradient over the whole subset."""

    import_path: ClassVar[str] = "flexhpc.training.optimizers:sgd"
    elementwise: ClassVar[bool] = True
    full_batch: ClassVar[bool] = True
    supports_mup: ClassVar[bool] = True

    optimizer: Literal["gd"]
    lr: Annotated[PositiveNumber, NUISANCE] = 0.1
    """Learning rate."""
    momentum: Annotated[Fraction, NUISANCE] = 0.0
    """Heavy-ball momentum."""


class Adaptive(MiniBatches):
    """Keys of all adaptive and preconditioned optimizers."""

    lr: Annotated[PositiveNumber, NUISANCE] = 1e-3
    """Learning rate."""


class Adam(Adaptive):
    """Adam (Kingma and Ba 2015, arXiv 1412.6980)."""

    import_path: ClassVar[str] = "flexhpc.training.optimizers:adam"
    elementwise: ClassVar[bool] = True
    supports_mup: ClassVar[bool] = True

    optimizer: Literal["adam"]


class AdamW(Adaptive):
    """Adam with decoupled weight decay."""

    import_path: ClassVar[str] = "flexhpc.training.optimizers:adam"
    elementwise: ClassVar[bool] = True
    supports_mup: ClassVar[bool] = True

    optimizer: Literal["adamw"]
    weight_decay: Annotated[NonNegativeNumber, NUISANCE] = 0.01
    """Decoupled weight decay."""


class Shampoo(Adaptive):
    """Shampoo (Gupta et al. 2018, arXiv 1802.09568)."""

    import_path: ClassVar[str] = "flexhpc.training.optimizers:shampoo"

    optimizer: Literal["shampoo"]
    lr: Annotated[PositiveNumber, NUISANCE] = 0.3
    """Learning rate."""


class Soap(Adaptive):
    """SOAP: Adam in the eigenbasis of Shampoo's preconditioner (arXiv 2409.11321)."""

    import_path: ClassVar[str] = "flexhpc.training.optimizers:soap"

    optimizer: Literal["soap"]
    lr: Annotated[PositiveNumber, NUISANCE] = 3e-3
    """Learning rate."""


class Muon(Adaptive):
    """Muon: orthogonalised momentum for matrices (kellerjordan.github.io/posts/muon), and AdamW for
    all other parameters."""

    import_path: ClassVar[str] = "flexhpc.training.optimizers:muon"
    matrices_only: ClassVar[bool] = True

    optimizer: Literal["muon"]
    lr: Annotated[PositiveNumber, NUISANCE] = 0.02
    """Learning rate of matrices; the learning rate of all other parameters is a tenth of it."""
