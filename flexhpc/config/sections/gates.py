"""Convergence gates of a training: they separate failures of capacity from failures of training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from flexhpc.config.sections.base import Count, Section, positive

Mode = Literal["off", "report", "reject"]
Tolerance = Annotated[float, Field(gt=0, lt=1)]


class PlateauGate(Section):
    """Plateau detection: whether training has stopped improving. Also decides when a probe may stop
    early."""

    mode: Mode = "report"
    """`report`: record the metric and stop at a plateau. `reject`: also, a failing probe that was
    still improving is not counted. `off`: train to the end of the budget."""
    patience: Count | None = None
    """Epochs without improvement after which training is at a plateau; by default `updates` and
    `share` determine this."""
    updates: Count = 1000
    """Updates without improvement after which training is at a plateau, limited to half of the
    budget. The larger of this number and `share` applies."""
    share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Fraction of the budget without improvement after which training is at a plateau. The larger
    of this number and `updates` applies."""
    tolerance: Tolerance = 1e-3
    """Relative decrease of the lowest training loss that counts as an improvement."""


class GradientGate(Section):
    """Whether the gradient of the loss on the whole subset is small at the end of training."""

    mode: Mode = "report"
    """`report`: record the gradient norm at the end of each probe. `reject`: a failing probe with a
    large norm is not counted. `off`: the gradient is not computed, which saves one pass over the
    subset."""
    tolerance: Tolerance = 0.1
    """Largest gradient norm of a converged probe, relative to the norm at initialisation."""


class CurvatureGate(Section):
    """Whether the loss has a direction of negative curvature at the end of training, as at a
    saddle."""

    mode: Mode = "off"
    """`report`: record the smallest and largest Ritz value of the Hessian at the end of each
    failing probe. `reject`: a failing probe with negative curvature is a `saddle` and is not
    counted."""
    tolerance: Tolerance = 1e-3
    """A Ritz value below minus this fraction of the largest one counts as negative curvature."""
    products: Annotated[int, Field(ge=2, le=10_000)] = 64
    """Maximum number of Hessian-vector products; each costs about two passes over the subset."""


class StabilityGate(Section):
    """Whether a failing probe ends with a loss well above its lowest one, for example because the
    learning rate is too large."""

    mode: Mode = "report"
    """`report`: such a probe is `unstable`, which is a failure of the training recipe and not of
    capacity. `reject`: it is not counted. `off`: the gate does not change the verdict."""
    given_back: Tolerance = 0.05
    """Fraction of the decrease of the loss, from initialisation to its lowest value, that may be
    lost again at the end of training."""


class Gates(Section):
    """Convergence checks. Each may be written as its mode alone: `plateau: off`."""

    plateau: PlateauGate = PlateauGate()
    """Plateau of the training loss."""
    gradient: GradientGate = GradientGate()
    """Norm of the gradient."""
    curvature: CurvatureGate = CurvatureGate()
    """Smallest eigenvalue of the Hessian, by the Lanczos method in float64 and eval mode."""
    stability: StabilityGate = StabilityGate()
    """Ratio of the final to the lowest loss."""

    @classmethod
    def clashes(cls, values: Mapping[str, Any], epochs: object = None) -> Iterator[tuple[str, str]]:
        """Yield invalid combinations of keys; see :meth:`Section.clashes`.

        Args:
            values: keys of the section as the user wrote them.
            epochs: the budget in epochs, None if it is given in another unit.
        """
        for gate, field in cls.model_fields.items():
            given = values.get(gate)
            off = field.default.mode == "off"
            if isinstance(given, dict) and given.get("mode", "off" if off else "") == "off":
                for key in given:
                    if key != "mode":
                        yield f"gates.{gate}.{key}", f"has no effect with {gate}: off; leave it out"
        plateau = values.get("plateau")
        if isinstance(plateau, dict) and plateau.get("mode", "report") != "off":
            patience = plateau.get("patience")
            for key in ("updates", "share"):
                if patience is not None and key in plateau:
                    yield f"gates.plateau.{key}", "has no effect with patience; keep one of them"
            if positive(patience) and positive(epochs) and patience >= epochs:
                what = f"{patience} epochs have no effect within a budget of {epochs}"
                yield "gates.plateau.patience", f"{what}; use a smaller patience, or plateau: off"
