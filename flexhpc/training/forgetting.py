"""How often samples are forgotten while a network trains (Toneva et al. 2019, arXiv 1812.05159)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Forgetting:
    """Counts, for each sample, the times that it is missed where it was right the time before.

    Args:
        n: samples; device: where to count.
    """

    def __init__(self, n: int, device: torch.device) -> None:
        self._events = torch.full((n,), -1, dtype=torch.int32, device=device)
        self._right = torch.zeros(n, dtype=torch.bool, device=device)

    def saw(self, ids: Tensor, wrong: Tensor) -> None:
        """Take in what became of samples that were looked at once each.

        Args:
            ids: int64 (m,), rows; wrong: bool (m,).
        """
        learnt = (~wrong).int() - 1  # from here on it counts from 0
        self._events[ids] = torch.maximum(self._events[ids] + (wrong & self._right[ids]), learnt)
        self._right[ids] = ~wrong

    def events(self) -> NDArray[np.int32]:
        """Return how often each was forgotten, int32 (n,); -1 for those that were never right."""
        return self._events.cpu().numpy()

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs."""
        return {"events": self._events, "right": self._right}

    def load(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state` returned."""
        self._events.copy_(state["events"])
        self._right.copy_(state["right"])
