"""Count forgetting events of samples (Toneva et al. 2019, arXiv 1812.05159)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Forgetting:
    """Counts, for each sample, how often it is missed after it was right the time before.

    Args:
        n: samples; device: of the counters.
    """

    def __init__(self, n: int, device: torch.device) -> None:
        self._events = torch.full((n,), -1, dtype=torch.int32, device=device)
        self._right = torch.zeros(n, dtype=torch.bool, device=device)

    def saw(self, ids: Tensor, wrong: Tensor) -> None:
        """Add an evaluation of some samples.

        Args:
            ids: int64 (m,), distinct rows; wrong: bool (m,).
        """
        learnt = (~wrong).int() - 1  # -1 until it is right for the first time, then counted from 0
        self._events[ids] = torch.maximum(self._events[ids] + (wrong & self._right[ids]), learnt)
        self._right[ids] = ~wrong

    def events(self) -> NDArray[np.int32]:
        """Return the forgetting events, int32 (n,); -1 for samples that were never right."""
        return self._events.cpu().numpy()

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"events": self._events, "right": self._right}

    def load(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state` returned."""
        self._events.copy_(state["events"])
        self._right.copy_(state["right"])
