"""Convergence gates: checks of failed training runs (plateau, stability, gradient, curvature)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from flexhpc.config.sections.gates import Gates, PlateauGate, StabilityGate
from flexhpc.errors import PointError
from flexhpc.training.curvature import RitzValues, hessian_ritz
from flexhpc.training.evaluation import Evaluator
from flexhpc.training.outcome import Verdict

_FLAG_PREFIX = "touched_"
"""Prefix of the metrics that record whether a gate detected missing convergence (1) or not (0)."""
_LAST_EPOCHS = 5
_EXPLOSION = 3.0


@dataclass(kw_only=True)
class Plateau:
    """Counter of epochs and updates since the last improvement.

    An epoch is an improvement if its loss is below ``best_loss * (1 - tolerance)``, or if fewer
    samples are missed than in every previous epoch.

    Attributes:
        tolerance: minimum relative decrease of the loss that counts as an improvement.
        best_loss: loss of the last epoch whose loss decreased by more than ``tolerance``.
        best_errors: smallest number of samples missed in an epoch so far.
        epochs: number of epochs since the last improvement.
        updates: number of updates since the last improvement.
    """

    tolerance: float
    best_loss: float = math.inf
    best_errors: float = math.inf
    epochs: int = 0
    updates: int = 0

    def update(self, loss: float, errors: int, updates: int) -> None:
        """Add an epoch with its loss, number of missed samples and number of updates."""
        lower = loss < self.best_loss * (1 - self.tolerance)
        fewer = errors < self.best_errors
        if lower:
            self.best_loss = loss
        if fewer:
            self.best_errors = errors
        if lower or fewer:
            self.epochs = self.updates = 0
        else:
            self.epochs += 1
            self.updates += updates


def patience_in_updates(gate: PlateauGate, max_steps: int | None, updates_per_epoch: int) -> float:
    """Return the number of updates without improvement after which training is at a plateau.

    Args:
        gate: settings of the gate.
        max_steps: budget in updates; None without a budget.
        updates_per_epoch: number of updates in an epoch.
    """
    if gate.patience is not None:
        return gate.patience * updates_per_epoch
    if max_steps is None:
        return gate.updates
    return max(gate.share * max_steps, min(gate.updates, max_steps / 2))


def is_unstable(gate: StabilityGate, initial_loss: float, losses: Sequence[float]) -> bool:
    """Return whether the loss increased again, or exploded, after its minimum.

    The loss increased again if the final loss exceeds the minimum by more than a fraction
    ``given_back`` of the decrease from initialisation to the minimum. The final loss is the lowest
    loss of the last five epochs, because the loss of a single epoch can be a spike.

    The loss exploded if, in any epoch after the minimum, it was above the loss at initialisation
    and above three times the minimum.

    Args:
        gate: settings of the gate.
        initial_loss: loss at initialisation.
        losses: loss of every epoch.
    """
    end, best = min(losses[-_LAST_EPOCHS:]), min(losses)
    highest = max(losses[losses.index(best) :])
    if highest > max(initial_loss, _EXPLOSION * best):
        return True
    return end > best + gate.given_back * max(initial_loss - best, 0.0)


def apply_gates(
    gates: Gates, verdict: Verdict, evaluator: Evaluator, plateau: Plateau, *,
    initial_gradient_norm: float, initial_loss: float, losses: Sequence[float],
) -> tuple[Verdict, bool, dict[str, float]]:  # fmt: skip
    """Apply the convergence gates to a finished training run.

    The verdicts ``fit`` and ``diverged`` do not change. In mode ``report``, a gate records its
    metrics, and only the stability gate can change the verdict. In mode ``reject``, a gate that
    detects missing convergence also rejects the training run, and can change the verdict.

    Args:
        gates: modes and tolerances of the gates.
        verdict: verdict at the end of the training loop.
        evaluator: evaluator of the trained model.
        plateau: state of the plateau detection after the last epoch.
        initial_gradient_norm: norm of the gradient at initialisation.
        initial_loss: loss at initialisation.
        losses: loss of every epoch.

    Returns:
        The final verdict, which a gate may have changed; whether a gate with the mode ``reject``
        rejected the training run, which is then not evidence of capacity; and the metrics that
        the gates record.

    Raises:
        PointError: the curvature gate has the mode ``reject``, and the network cannot be
            differentiated twice.
    """
    metrics: dict[str, float] = {}
    flags: dict[str, bool] = {}
    failed = verdict not in ("fit", "diverged")
    if gates.plateau.mode != "off":
        metrics["plateau_epochs"] = float(plateau.epochs)
        flags["plateau"] = verdict == "unconverged"
    if gates.stability.mode != "off" and failed:
        metrics |= {"loss_start": initial_loss, "loss_best": min(losses)}
        flags["stability"] = is_unstable(gates.stability, initial_loss, losses)
    if gates.gradient.mode != "off" and verdict != "diverged":
        norms = evaluator.norms_and_loss()
        metrics |= {
            "gradient_norm": norms.gradient,
            "gradient_norm_start": initial_gradient_norm,
            "parameter_norm": norms.parameters,
        }
        flags["gradient"] = norms.gradient > gates.gradient.tolerance * initial_gradient_norm
    if gates.curvature.mode != "off" and failed:
        try:
            ritz = hessian_ritz(
                evaluator.model, evaluator.inputs, evaluator.labels, evaluator.partition,
                max_products=gates.curvature.products, seed=evaluator.engine.seed,
            )  # fmt: skip
        except PointError:
            if gates.curvature.mode == "reject":
                raise
            ritz = RitzValues(products=0)  # nan
        metrics |= {
            "min_ritz": ritz.min,
            "max_ritz": ritz.max,
            "hessian_products": float(ritz.products),
        }
        if not math.isnan(ritz.min):
            flags["curvature"] = ritz.has_negative_min(gates.curvature.tolerance)
    if not failed:
        return verdict, False, metrics
    metrics |= {_FLAG_PREFIX + gate: float(flag) for gate, flag in flags.items()}
    rejecting = [
        gate for gate, flag in flags.items() if flag and getattr(gates, gate).mode == "reject"
    ]
    if "curvature" in rejecting:
        verdict = "saddle"
    elif flags.get("stability"):
        verdict = "unstable"
    elif rejecting:
        verdict = "unconverged"
    return verdict, bool(rejecting), metrics
