"""The convergence gates at the end of a probe: was a failure one of capacity, or of training?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from flexhpc.config.sections.gates import Gates
from flexhpc.errors import PointError
from flexhpc.training.curvature import Ritz
from flexhpc.training.evaluation import Evaluator
from flexhpc.training.outcome import Verdict
from flexhpc.training.plateau import Plateau, unstable

TOUCHED = "touched_"
"""Prefix of the readings that say whether a gate found a failing probe short of a minimum."""


@dataclass(frozen=True, kw_only=True)
class Examined:
    """What the gates say of a probe.

    Attributes:
        verdict: how it ended, in the light of the gates.
        rejected: whether a gate refused it; then it says nothing about capacity.
        readings: by name.
    """

    verdict: Verdict
    rejected: bool
    readings: dict[str, float]


def examine(
    gates: Gates, verdict: Verdict, evaluator: Evaluator, plateau: Plateau, *,
    gradient_start: float, loss_start: float, losses: Sequence[float],
) -> Examined:  # fmt: skip
    """Take the readings of a finished training and judge it by them.

    Only failures are judged: a fit is a fit, wherever it stands. A gate in mode ``report`` says
    what it found and names the verdict at most; one in mode ``reject`` refuses the probe.

    Args:
        gates: their modes and tolerances.
        verdict: how the training ended.
        evaluator: of the trained model.
        plateau: of its losses.
        gradient_start: norm of the gradient at initialisation.
        loss_start: loss at initialisation; losses: after every epoch.
    """
    readings: dict[str, float] = {}
    touched: dict[str, bool] = {}
    failed = verdict not in ("fit", "diverged")
    if gates.plateau.mode != "off":
        readings["plateau_epochs"] = float(plateau.epochs)
        touched["plateau"] = verdict == "unconverged"
    if gates.stability.mode != "off" and failed:
        readings |= {"loss_start": loss_start, "loss_best": min(losses)}
        touched["stability"] = unstable(gates.stability, loss_start, losses)
    if gates.gradient.mode != "off" and verdict != "diverged":
        norms = evaluator.norms()
        readings |= {
            "gradient_norm": norms.gradient,
            "gradient_norm_start": gradient_start,
            "parameter_norm": norms.parameters,
        }
        touched["gradient"] = norms.gradient > gates.gradient.tolerance * gradient_start
    if gates.curvature.mode != "off" and failed:
        ritz = _curvature(gates, evaluator)
        readings |= {
            "min_ritz": ritz.min,
            "max_ritz": ritz.max,
            "hessian_products": float(ritz.products),
        }
        if not math.isnan(ritz.min):
            touched["curvature"] = ritz.negative(gates.curvature.tolerance)
    if not failed:
        return Examined(verdict=verdict, rejected=False, readings=readings)
    readings |= {TOUCHED + gate: float(flag) for gate, flag in touched.items()}
    refusing = [gate for gate, flag in touched.items() if flag and _rejects(gates, gate)]
    if "curvature" in refusing:
        verdict = "saddle"
    elif touched.get("stability"):
        verdict = "unstable"
    elif refusing:
        verdict = "unconverged"
    return Examined(verdict=verdict, rejected=bool(refusing), readings=readings)


def _curvature(gates: Gates, evaluator: Evaluator) -> Ritz:
    """Return the curvature; nan where a network has none and it is only to be reported."""
    try:
        return evaluator.ritz(gates.curvature.products)
    except PointError:
        if gates.curvature.mode == "reject":
            raise
    nan = math.nan
    return Ritz(min=nan, max=nan, products=0, residual_min=nan, residual_max=nan)


def _rejects(gates: Gates, gate: str) -> bool:
    return bool(getattr(gates, gate).mode == "reject")
