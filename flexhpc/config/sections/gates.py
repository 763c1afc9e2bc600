"""The convergence gates of a training: is a failure one of capacity, or of training?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from flexhpc.config.sections.base import LATER, Count, Section, Since, positive

Mode = Literal["off", "report", "reject"]
Tolerance = Annotated[float, Field(gt=0, lt=1)]


class PlateauGate(Section):
    """Has training stopped improving? Also decides when a probe may stop early."""

    mode: Mode = "report"
    """`report`: record the reading, stop at a plateau. `reject`: a failing probe that still
    improved does not count. `off`: train to the end of the budget."""
    patience: Count | None = None
    """Epochs without improvement that make a plateau; by default `updates` and `share` say."""
    updates: Annotated[Count, LATER] = 1000
    """Updates without improvement that make a plateau, if `share` asks for no more; at most half of
    the budget."""
    share: Annotated[float, Field(gt=0, lt=1), LATER] = 0.2
    """Part of the budget without improvement that makes a plateau, if `updates` asks for no
    more: a probe of few updates then waits as long as one of many."""
    tolerance: Tolerance = 1e-3
    """Relative fall of the lowest training loss that counts as an improvement."""


class GradientGate(Section):
    """Is the gradient of the whole subset's loss small at the end?"""

    mode: Mode = "report"
    """`report`: record the gradient's norm at the end of each probe. `reject`: a failing probe with
    a large one does not count. `off`: save that pass."""
    tolerance: Annotated[Tolerance, LATER] = 0.1
    """Largest gradient of a converged probe: its norm, over that at initialisation."""


class CurvatureGate(Section):
    """Does the loss curve downwards in some direction at the end, as at a saddle?"""

    mode: Mode = "off"
    """`report`: record the smallest and largest Ritz value of the Hessian at the end of each
    failing probe. `reject`: one with negative curvature is a `saddle` and does not count."""
    tolerance: Tolerance = 1e-3
    """A Ritz value below minus this fraction of the largest one is negative curvature."""
    products: Annotated[int, Field(ge=2, le=10_000)] = 64
    """Hessian-vector products at most; each costs about two passes over the subset."""


class StabilityGate(Section):
    """Does a failing probe end where its loss had left a better place, as by too large a rate?"""

    mode: Mode = "report"
    """`report`: such a probe is `unstable`: a failure of the recipe, not one of capacity. `reject`:
    it does not count. `off`: it is called what it would be otherwise."""
    given_back: Tolerance = 0.05
    """Part of the loss's fall, from initialisation to its lowest, that it may have given back at
    the end."""


class Gates(Section):
    """Convergence checks. Each may be written as its mode alone: `plateau: off`."""

    plateau: PlateauGate = PlateauGate()
    """Plateau of the training loss."""
    gradient: GradientGate = GradientGate()
    """Norm of the gradient."""
    curvature: Annotated[CurvatureGate, LATER] = CurvatureGate()
    """Smallest eigenvalue of the Hessian, by Lanczos' method in float64 and eval mode."""
    stability: Annotated[StabilityGate, Since(version=2, before=StabilityGate(mode="off"))] = (
        StabilityGate()
    )
    """Loss at the end over the lowest one."""

    @classmethod
    def clashes(cls, values: Mapping[str, Any], epochs: object = None) -> Iterator[tuple[str, str]]:
        """See :meth:`Section.clashes`; with the budget in epochs, if that is the budget."""
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
