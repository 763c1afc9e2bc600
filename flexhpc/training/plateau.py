"""Has training stopped improving, and did it leave a better place? What verdicts rest on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from flexhpc.config.sections.gates import PlateauGate, StabilityGate

_LAST_LOOKS = 5
_EXPLODED = 3.0


def patience(gate: PlateauGate, allowed: int | None, per_epoch: int) -> float:
    """Return after how many updates without improvement training has stopped improving.

    Args:
        gate: says how long to wait; allowed: the budget in updates, None without any.
        per_epoch: updates of an epoch.
    """
    if gate.patience is not None:
        return gate.patience * per_epoch
    if allowed is None:
        return gate.updates
    return max(gate.share * allowed, min(gate.updates, allowed / 2))


def unstable(gate: StabilityGate, loss_start: float, losses: Sequence[float]) -> bool:
    """Return whether training gave back much of what it had gained, or exploded after its best.

    The end is the lowest of the last looks: a single one may lie on a spike. It exploded if its
    loss rose above the one at initialisation after its lowest, and above three times that: a
    network that has learned nothing stays near where it began.

    Args:
        gate: says how far; loss_start: at initialisation; losses: after every epoch.
    """
    end, best = min(losses[-_LAST_LOOKS:]), min(losses)
    highest = max(losses[losses.index(best) :])
    if highest > max(loss_start, _EXPLODED * best):
        return True
    return end > best + gate.given_back * max(loss_start - best, 0.0)


@dataclass(kw_only=True)
class Plateau:
    """Counts epochs and updates since the last improvement.

    An epoch improves if its loss lies below the lowest so far by a relative ``tolerance``, or if
    it misses fewer samples than ever before.

    Attributes:
        tolerance: relative fall of the loss that counts.
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
        """Take in one epoch of so many updates."""
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
