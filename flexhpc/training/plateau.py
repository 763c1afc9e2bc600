"""Plateau and instability detection."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from flexhpc.config.sections.gates import PlateauGate, StabilityGate

_LAST_LOOKS = 5
_EXPLODED = 3.0


def patience(gate: PlateauGate, allowed: int | None, per_epoch: int) -> float:
    """Return the number of updates without improvement that make a plateau.

    Args:
        allowed: budget in updates, None without one; per_epoch: updates per epoch.
    """
    if gate.patience is not None:
        return gate.patience * per_epoch
    if allowed is None:
        return gate.updates
    return max(gate.share * allowed, min(gate.updates, allowed / 2))


def unstable(gate: StabilityGate, loss_start: float, losses: Sequence[float]) -> bool:
    """Return whether a training lost much of what it had gained, or exploded after its best.

    The final loss is the lowest of the last five epochs, since a single one may be a spike. A
    training exploded if its loss rose, after the minimum, above that at initialisation and above
    three times the minimum.

    Args:
        gate: has the tolerance; loss_start: at initialisation; losses: of every epoch.
    """
    end, best = min(losses[-_LAST_LOOKS:]), min(losses)
    highest = max(losses[losses.index(best) :])
    if highest > max(loss_start, _EXPLODED * best):
        return True
    return end > best + gate.given_back * max(loss_start - best, 0.0)


@dataclass(kw_only=True)
class Plateau:
    """Counts epochs and updates since the last improvement.

    An epoch is an improvement if its loss is below the lowest so far by a relative ``tolerance``,
    or if it misses fewer samples than any epoch so far.

    Attributes:
        tolerance: relative decrease of the loss that counts as an improvement.
        best_loss: loss of the last improvement by loss.
        best_errors: fewest samples missed so far.
        epochs, updates: since the last improvement.
    """

    tolerance: float
    best_loss: float = math.inf
    best_errors: float = math.inf
    epochs: int = 0
    updates: int = 0

    def update(self, loss: float, errors: int, updates: int) -> None:
        """Add an epoch."""
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
