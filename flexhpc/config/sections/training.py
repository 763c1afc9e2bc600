"""The ``training`` section: how a probe is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from flexhpc.config.sections.base import (
    LIMIT,
    NUISANCE,
    PRECISION,
    Count,
    Decay,
    Fraction,
    Problems,
    Rate,
    Section,
)
from flexhpc.config.sections.gates import Gates

BUDGETS = ("epochs", "steps", "gradient_evaluations", "until")
FIRST_STEPS, _MAX_FACTOR = 1000, 64
"""Defaults of ``until: saturation``: first budget (updates); ratio of the largest to the first."""


@dataclass(frozen=True, kw_only=True)
class Doubling:
    """Settings for repeated doubling of the budget.

    Attributes:
        saturation: doubling ends when the last doubling raised the EMC by at most this factor.
        max_doublings: maximum number of doublings.
        keep_states: number of final states that are kept to continue training runs.
    """

    saturation: float
    max_doublings: int
    keep_states: int = 32


class Sam(Section):
    """Sharpness-aware minimization (Foret et al. 2021, arXiv 2010.01412): the gradient is taken at
    the point of the highest loss in a neighbourhood of the weights. Each update needs two gradients
    and costs twice as much."""

    rho: Annotated[Rate, NUISANCE] = 0.05
    """Radius of the neighbourhood."""


class Procedure(Section):
    """The training procedure of one probe: its budget and everything else that determines the
    result."""

    supports_mup: ClassVar[bool] = False
    """Whether the optimizer supports the learning rates per layer that ``model.init: mup`` sets."""
    matrices_only: ClassVar[bool] = False
    """Whether the update rule is for matrices only, and other parameters use a different rule."""

    if TYPE_CHECKING:  # a field of every variant, each with its own default
        epochs: Count | None

    steps: Count | None = None
    """Budget in parameter updates, instead of `epochs`."""
    gradient_evaluations: Count | None = None
    """Budget in gradients of single samples, instead of `epochs`. An epoch takes n gradients, or
    2 n with SAM."""

    @property
    def rejects(self) -> bool:
        """Whether a gate may reject a probe, which the search then ignores."""
        return False

    @property
    def budget(self) -> tuple[str, int] | None:
        """Key and value of the budget, such as ``("steps", 1000)``; None without a budget. With
        ``until: saturation``, this is the first budget."""
        values = {key: getattr(self, key) for key in BUDGETS[:-1]}
        return next(((key, value) for key, value in values.items() if value is not None), None)

    @property
    def extends_smaller_budgets(self) -> bool:
        """Whether a training run with a smaller budget is a prefix of one with this budget."""
        return False

    @property
    def doubling(self) -> Doubling | None:
        """Settings for doubling the budget; None if it is not doubled."""
        return None

    @property
    def knows_other_budgets(self) -> bool:
        """Whether the training runs of a point determine its EMC at other budgets."""
        return self.extends_smaller_budgets or self.doubling is not None

    def at_stage(self, stage: int) -> Procedure:
        """Return the procedure with its budget doubled ``stage`` times."""
        return self

    def check(self) -> Problems:
        yield from super().check()
        doubles = getattr(self, "until", None) == "saturation"
        keys = BUDGETS[:-1] if doubles else BUDGETS
        budgets = [key for key in keys if getattr(self, key, None) is not None]
        for key in budgets[1:]:
            yield key, f"cannot be combined with {budgets[0]}; remove one of them"


class Training(Procedure):
    """Gradient-based training of a network.

    ``import_path`` names a function (section, list of parameters) -> torch.optim.Optimizer. Before
    every update, the learning rate of each of its ``param_groups`` is set to the learning rate of
    the schedule times the group's ``lr_factor`` (by default 1).
    """

    full_batch: ClassVar[bool] = False
    """Whether an update uses the gradient of the whole subset."""
    elementwise: ClassVar[bool] = False
    """Whether an update treats every weight independently, so that any memory format works."""

    if TYPE_CHECKING:  # a field of every variant, each with its own default
        lr: Rate

    optimizer: str
    """Optimizer."""
    epochs: Count | None = None
    """Budget in passes over the subset."""
    until: Literal["convergence", "saturation"] | None = Field(
        default_factory=lambda values: (
            None if any(values.get(key) for key in BUDGETS[:-1]) else "saturation"
        )
    )
    """`saturation` (the default without a budget): the search doubles the budget and continues its
    failing training runs until a doubling hardly raises the EMC; `steps`, `epochs` or
    `gradient_evaluations` is the first budget, by default 1,000 updates. `convergence`: trains
    without a budget, until the plateau gate detects that training has stopped improving."""
    saturation: Annotated[float, Field(gt=1, le=10), PRECISION] = 1.1
    """With `until: saturation`, the largest factor by which the last doubling of the budget may
    have raised the EMC (upper end of its 90 % interval)."""
    max_budget: Annotated[Count | None, PRECISION] = None
    """With `until: saturation`, the largest budget, in the unit of the first one; by default 64
    times the first one."""
    keep_states: Annotated[int, Field(ge=0, le=10**6), LIMIT] = 32
    """With `until: saturation`, the number of failed training runs of a point whose final states
    (weights and optimizer) are kept, so that they can be continued; at most 4 GiB per point. All
    others are retrained if needed."""
    unconverged: Literal["report", "extend"] = "report"
    """Treatment of a failing probe that is still improving when its budget ends. `report`: its
    verdict is `unconverged`. `extend`: its budget is doubled repeatedly, up to `extend_to` times
    the initial one."""
    extend_to: Annotated[float, Field(gt=1, le=1e6)] = 8.0
    """Cap of an extended budget, as a multiple of the initial one."""
    schedule: Literal["constant", "cosine", "wsd"] = "constant"
    """Learning rate schedule over the budget. `cosine`: half a period of a cosine, to zero. `wsd`
    (warm-up, stable, decay): constant, then linear to zero over the last tenth of the budget."""
    warmup: Annotated[Count | None, NUISANCE] = None
    """Number of updates over which the learning rate rises linearly to the value of the
    schedule."""
    precision: Literal["fp32", "bf16", "fp64"] = "fp32"
    """Precision of the forward and backward pass (bf16: autocast, weights remain fp32)."""
    weight_decay: Annotated[Decay, NUISANCE] = 0.0
    """L2 penalty (sgd, gd, adam, shampoo) or decoupled decay (adamw, soap, muon)."""
    label_smoothing: Annotated[Fraction, NUISANCE] = 0.0
    """Fraction of each label that is distributed over all classes, in the training loss only."""
    clip_norm: Annotated[Rate | None, NUISANCE] = None
    """Maximum norm of the gradient; a larger gradient is scaled down to this norm."""
    sam: Sam | None = None
    """Sharpness-aware minimization on top of the optimizer."""
    gates: Gates = Gates()
    """Convergence checks."""
    curves: Literal["batches", "evaluation"] = "batches"
    """Source of the loss and training error of an epoch, which determine plateaus and stability.
    `batches`: the batches of the epoch, each before its update, as in most training loops.
    `evaluation`: the whole subset in eval mode after the epoch, which is slower. Both check after
    every epoch whether all samples are fitted; `batches` first evaluates a few samples that were
    missed late in the epoch."""
    shards: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Number of parts into which each batch is split. Their gradients are computed separately and
    added in a fixed order, so that results are bitwise identical on any number of processes. By
    default each process computes one part, and results are equal up to rounding."""

    @property
    def budget(self) -> tuple[str, int] | None:
        """Key and value of the (first) budget."""
        default = ("steps", FIRST_STEPS) if self.until == "saturation" else None
        return super().budget or default

    @property
    def gradients_per_sample(self) -> int:
        """Number of gradients per sample of a batch: 1, or 2 with SAM."""
        return 1 if self.sam is None else 2

    @property
    def doubling(self) -> Doubling | None:
        """Settings for doubling the budget; None without ``until: saturation``."""
        if self.until != "saturation" or self.budget is None:
            return None
        _, first = self.budget
        last = int(math.log2((self.max_budget or _MAX_FACTOR * first) / first))
        return Doubling(
            saturation=self.saturation, max_doublings=last, keep_states=self.keep_states
        )

    def at_stage(self, stage: int) -> Training:
        """Return the procedure with its budget doubled ``stage`` times."""
        if self.until != "saturation" or self.budget is None:
            return self
        key, first = self.budget
        return self.model_copy(update={key: first << stage})

    def conflict(self, other: str, fix: str) -> tuple[str, str]:
        """Return (key, problem) for ``until: saturation`` with a setting that excludes it."""
        if "until" in self.model_fields_set:
            return "until", f"saturation cannot be combined with {other}; {fix}"
        problem = f"a budget, such as steps: 1000, is required with {other}"
        return "steps", f"{problem}; the default, until: saturation, cannot be combined with it"

    @property
    def rejects(self) -> bool:
        """Whether a gate may reject a probe."""
        return any(gate.mode == "reject" for gate in vars(self.gates).values())

    @property
    def extends_smaller_budgets(self) -> bool:
        """Whether the budget is fixed and no update depends on it."""
        fixed = self.budget is not None and self.unconverged == "report"
        return fixed and self.schedule == "constant"

    def check(self) -> Problems:
        yield from super().check()
        plateau = self.gates.plateau
        patience = None if plateau.mode == "off" else plateau.patience
        if patience is not None and self.epochs is not None and patience >= self.epochs:
            problem = f"{patience} epochs have no effect within a budget of {self.epochs}"
            yield "gates.plateau.patience", f"{problem}; use a smaller patience, or plateau: off"
        for key, value in (("until", "convergence"), ("unconverged", "extend")):
            if getattr(self, key) == value and plateau.mode == "off":
                yield key, f"{value} needs the plateau gate; remove plateau: off"
            if getattr(self, key) == value and self.schedule != "constant":
                yield key, f"{value} cannot be combined with schedule: {self.schedule}; remove one"
        if self.until == "saturation":
            yield from self._check_saturation()
        else:
            for key in self.model_fields_set & {"saturation", "max_budget", "keep_states"}:
                yield key, "has no effect without until: saturation; remove it"
        if self.until == "convergence":
            if self.unconverged == "extend":
                yield "unconverged", "has no effect with until: convergence; remove it"
            if plateau.mode == "reject":
                problem = "reject has no effect with until: convergence, which ends at a plateau"
                yield "gates.plateau", f"{problem}; remove it"
        if "extend_to" in self.model_fields_set and self.unconverged != "extend":
            yield "extend_to", "has no effect without unconverged: extend; remove it"
        key, budget = self.budget or ("", 0)
        if self.warmup is not None and key == "steps" and self.warmup >= budget:
            yield "warmup", f"must be below steps ({budget}), not {self.warmup}"

    def _check_saturation(self) -> Problems:
        if self.schedule == "cosine":
            yield self.conflict("schedule: cosine", "use wsd, constant or a budget")
        if self.unconverged == "extend":
            yield self.conflict("unconverged: extend", "remove one of them")
        if self.max_budget is not None and self.budget is not None:
            key, first = self.budget
            if self.max_budget < 2 * first:
                yield "max_budget", f"must be at least twice {key} ({first}), not {self.max_budget}"


class MiniBatches(Training):
    """Keys of all optimizers that take the gradient of a mini-batch."""

    batch_size: Annotated[Count, NUISANCE] = 128
    """Global batch size; an epoch is split into batches of at most this many samples."""
    batches: Literal["near_equal", "tail"] = "near_equal"
    """How an epoch is split. `near_equal`: into the fewest batches, equal to within one sample.
    `tail`: into full batches and a smaller last one, like a plain DataLoader; whether n samples can
    be fitted then depends on n modulo the batch size."""


class Sgd(MiniBatches):
    """Stochastic gradient descent on mini-batches."""

    import_path: ClassVar[str] = "flexhpc.training.optimizers:sgd"
    elementwise: ClassVar[bool] = True
    supports_mup: ClassVar[bool] = True

    optimizer: Literal["sgd"]
    lr: Annotated[Rate, NUISANCE] = 0.05
    """Learning rate."""
    momentum: Annotated[Fraction, NUISANCE] = 0.9
    """Heavy-ball momentum."""


class Gd(Training):
    """Exact full-batch gradient descent: the mean gradient of the whole subset per update."""

    import_path: ClassVar[str] = "flexhpc.training.optimizers:sgd"
    elementwise: ClassVar[bool] = True
    full_batch: ClassVar[bool] = True
    supports_mup: ClassVar[bool] = True

    optimizer: Literal["gd"]
    lr: Annotated[Rate, NUISANCE] = 0.1
    """Learning rate."""
    momentum: Annotated[Fraction, NUISANCE] = 0.0
    """Heavy-ball momentum."""


class Adaptive(MiniBatches):
    """Keys of all adaptive and preconditioned optimizers."""

    lr: Annotated[Rate, NUISANCE] = 1e-3
    """Learning rate."""


class Adam(Adaptive):
    """Adam."""

    import_path: ClassVar[str] = "flexhpc.training.optimizers:adam"
    elementwise: ClassVar[bool] = True
    supports_mup: ClassVar[bool] = True

    optimizer: Literal["adam"]


class AdamW(Adaptive):
    """Adam with decoupled weight decay."""

    import_path: ClassVar[str] = "flexhpc.training.optimizers:adamw"
    elementwise: ClassVar[bool] = True
    supports_mup: ClassVar[bool] = True

    optimizer: Literal["adamw"]
    weight_decay: Annotated[Decay, NUISANCE] = 0.01
    """Decoupled weight decay."""


class Shampoo(Adaptive):
    """Shampoo (Gupta et al. 2018, arXiv 1802.09568)."""

    import_path: ClassVar[str] = "flexhpc.training.optimizers:shampoo"

    optimizer: Literal["shampoo"]
    lr: Annotated[Rate, NUISANCE] = 0.3
    """Learning rate."""


class Soap(Adaptive):
    """SOAP: Adam in the eigenbasis of Shampoo's preconditioner (arXiv 2409.11321)."""

    import_path: ClassVar[str] = "flexhpc.training.optimizers:soap"

    optimizer: Literal["soap"]
    lr: Annotated[Rate, NUISANCE] = 3e-3
    """Learning rate."""


class Muon(Adaptive):
    """Muon: orthogonalised momentum for matrices (kellerjordan.github.io/posts/muon), AdamW for all
    other parameters."""

    import_path: ClassVar[str] = "flexhpc.training.optimizers:muon"
    matrices_only: ClassVar[bool] = True

    optimizer: Literal["muon"]
    lr: Annotated[Rate, NUISANCE] = 0.02
    """Learning rate of matrices; other parameters use a tenth of it."""
