"""Convergence gates of a training run, which distinguish lack of capacity from failed
optimization."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema

from flexhpc.config.sections.base import Count, Problems, Section

Mode = Literal["off", "report", "reject"]
Tolerance = Annotated[float, Field(gt=0, lt=1)]


class Gate(Section):
    """Keys that all gates share. ``plateau: off`` is short for ``plateau: {mode: off}``."""

    mode: Mode = "report"

    @model_validator(mode="before")
    @classmethod
    def _expand_short_form(cls, value: Any) -> Any:
        return {"mode": value} if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Return the JSON schema of a gate, which is a mode (a string) or a mapping of keys."""
        return {"anyOf": [{"enum": list(get_args(Mode))}, handler(schema)]}


class PlateauGate(Gate):
    """A gate that checks whether training has stopped improving; it may end a probe early."""

    mode: Mode = "report"
    """`report`: record the number of epochs since the last improvement. With a constant schedule,
    training also stops at a plateau, except with `until: saturation`. `reject`: in addition, reject
    failing probes that were still improving at the end of the budget. `off`: train to the end of
    the budget."""
    patience: Count | None = None
    """Number of epochs without improvement after which training is at a plateau; by default the
    number is computed from `updates` and `share`."""
    updates: Count = 1000
    """Number of updates without improvement after which training is at a plateau, limited to half
    of the budget. If the fraction `share` of the budget is longer, that fraction applies."""
    share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Fraction of the budget without improvement after which training is at a plateau. If `updates`
    (limited to half of the budget) is longer, `updates` applies."""
    tolerance: Tolerance = 1e-3
    """Minimum relative decrease of the training loss that counts as an improvement. A new minimum
    of the number of misclassified samples also counts as an improvement."""


class GradientGate(Gate):
    """A gate that checks whether the gradient on the whole subset is small after training."""

    mode: Mode = "report"
    """`report`: record the gradient norm at the end of each probe. `reject`: in addition, reject
    failing probes whose gradient norm at the end is above `tolerance` times the norm at
    initialisation. `off`: do not compute the gradient on the whole subset."""
    tolerance: Tolerance = 0.1
    """Largest gradient norm of a converged probe, relative to the norm at initialisation."""


class CurvatureGate(Gate):
    """A gate that checks whether the loss has a direction of negative curvature after training, as
    at a saddle."""

    mode: Mode = "off"
    """`report`: record the smallest and the largest Ritz value of the Hessian at the end of each
    failing probe. `reject`: in addition, reject failing probes with negative curvature (verdict
    `saddle`)."""
    tolerance: Tolerance = 1e-3
    """The curvature is negative if the smallest Ritz value is below -`tolerance` times the largest
    Ritz value."""
    products: Annotated[int, Field(ge=2, le=10_000)] = 64
    """Maximum number of Hessian-vector products; each costs about three gradients of the subset."""


class StabilityGate(Gate):
    """A gate that checks whether the loss of a failing probe rises well above its minimum, for
    example because the learning rate is too large."""

    mode: Mode = "report"
    """`report`: a failing probe whose loss rises well above its minimum gets the verdict
    `unstable`, because the training recipe caused the failure, not lack of capacity. `reject`: in
    addition, the probe is rejected. `off`: the gate does not change the verdict."""
    given_back: Tolerance = 0.05
    """A failing probe is unstable if its final loss exceeds the minimum by more than this fraction
    of the decrease from the initial loss to the minimum. The final loss is the lowest loss of the
    last five epochs. A failing probe is also unstable if the loss of any epoch after the minimum
    exceeds both the initial loss and three times the minimum."""


class Gates(Section):
    """Convergence gates. `plateau: off` is short for `plateau: {mode: off}`."""

    plateau: PlateauGate = PlateauGate()
    """Gate that checks for a plateau of the training loss."""
    gradient: GradientGate = GradientGate()
    """Gate that checks the norm of the gradient."""
    curvature: CurvatureGate = CurvatureGate()
    """Gate that checks the smallest eigenvalue of the Hessian, estimated by the Lanczos method in
    float64 and eval mode."""
    stability: StabilityGate = StabilityGate()
    """Gate that checks whether the loss rises after its minimum."""

    def combination_problems(self) -> Problems:
        for name in type(self).model_fields:
            gate: Gate = getattr(self, name)
            if gate.mode == "off":
                for key in gate.model_fields_set - {"mode"}:
                    yield f"{name}.{key}", f"has no effect with {name}: off; remove it"
        if self.plateau.mode != "off" and self.plateau.patience is not None:
            for key in self.plateau.model_fields_set & {"updates", "share"}:
                yield f"plateau.{key}", "has no effect with patience; remove one of them"
