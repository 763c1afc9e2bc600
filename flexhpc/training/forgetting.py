"""How often samples are forgotten while a network trains (Toneva et al. 2019, arXiv 1812.05159)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Forgetting:
    """Counts, for each sample, the times that it is missed where it was right the time before.

    Args:
        n: samples; device: where to count.

    Attributes:
        events: int32 (n,).
    """

    def __init__(self, n: int, device: torch.device) -> None:
        self.events = torch.zeros(n, dtype=torch.int32, device=device)
        self._right = torch.zeros(n, dtype=torch.bool, device=device)

    def saw(self, ids: Tensor, wrong: Tensor) -> None:
        """Take in what became of samples that were looked at once each.

        Args:
            ids: int64 (m,), rows; wrong: bool (m,).
        """
        self.events[ids] += wrong & self._right[ids]
        self._right[ids] = ~wrong

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs."""
        return {"events": self.events, "right": self._right}

    def load(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state` returned."""
        self.events.copy_(state["events"])
        self._right.copy_(state["right"])
