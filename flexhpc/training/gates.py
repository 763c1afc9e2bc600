"""Convergence gates: decide whether a failed training had reached a minimum."""

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
"""Prefix of metrics that are 1 if a gate found a failed training short of a minimum."""


@dataclass(frozen=True, kw_only=True)
class Examined:
    """Result of the gates.

    Attributes:
        verdict: with the gates taken into account.
        rejected: whether a gate rejected the training, which then says nothing about capacity.
        readings: metrics by name.
    """

    verdict: Verdict
    rejected: bool
    readings: dict[str, float]


def examine(
    gates: Gates, verdict: Verdict, evaluator: Evaluator, plateau: Plateau, *,
    gradient_start: float, loss_start: float, losses: Sequence[float],
) -> Examined:  # fmt: skip
    """Compute the metrics of a finished training, and apply the gates to it.

    Only failures are judged. A gate in mode ``report`` records its finding and may change the
    verdict; one in mode ``reject`` rejects the training.

    Args:
        gates: modes and tolerances.
        verdict: of the training loop.
        evaluator: of the trained model.
        plateau: of its losses.
        gradient_start: norm of the gradient at initialisation.
        loss_start: loss at initialisation; losses: of every epoch.
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
    """Return the curvature; nan if it is undefined for the model and only reported."""
    try:
        return evaluator.ritz(gates.curvature.products)
    except PointError:
        if gates.curvature.mode == "reject":
            raise
    nan = math.nan
    return Ritz(min=nan, max=nan, products=0, residual_min=nan, residual_max=nan)


def _rejects(gates: Gates, gate: str) -> bool:
    return bool(getattr(gates, gate).mode == "reject")
