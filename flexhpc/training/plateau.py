"""Has training stopped improving? The rule behind stopping early and behind two verdicts."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(kw_only=True)
class Plateau:
    """Counts epochs since the last improvement.

    An epoch improves if its loss lies below the lowest so far by a relative ``tolerance``, or if
    it misses fewer samples than ever before.

    Attributes:
        tolerance: relative fall of the loss that counts.
        best_loss: loss of the last improvement by loss.
        best_errors: fewest samples missed so far.
        since: epochs since the last improvement.
    """

    tolerance: float
    best_loss: float = math.inf
    best_errors: float = math.inf
    since: int = 0

    def update(self, loss: float, errors: int) -> None:
        """Take in one epoch."""
        self.since += 1
        if loss < self.best_loss * (1 - self.tolerance):
            self.best_loss, self.since = loss, 0
        if errors < self.best_errors:
            self.best_errors, self.since = errors, 0
