"""Loss and errors of an epoch, from the forward passes that its own updates make anyway."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

SUSPECTS = 16
"""Samples that are asked first whether all fit."""
_MOST_HELD = 2**16
Loss = Callable[..., Tensor]


def right(logits: Tensor, labels: Tensor) -> Tensor:
    """Return which samples are classified right, bool (m,).

    One whose logits are not all finite is not.

    Args:
        logits: (m, classes), or the log-probabilities; labels: int64 (m,).
    """
    finite = logits.abs().amax(dim=1) < torch.inf  # false for nan as well
    return (logits.argmax(dim=1) == labels) & finite


class Running:
    """Mean loss and samples missed over the batches of an epoch, each before its own update.

    That is what a training loop prints as its loss. Logits are held and judged many batches at
    once, so that a step pays next to nothing; when that is depends on their number alone, so an
    interrupted epoch comes to the same bits.

    Args:
        device: where to sum up.
        loss: what makes a loss of the logits that are taken in, or of log-probabilities.

    Attributes:
        missed: int64 (at most ``SUSPECTS``,), rows that were missed late in the epoch, or None.
    """

    def __init__(self, device: torch.device, loss: Loss = functional.cross_entropy) -> None:
        self._loss = loss
        self._totals = torch.zeros(3, dtype=torch.float64, device=device)
        self._held: list[tuple[Tensor, Tensor, Tensor]] = []
        self._values = 0
        self.missed: Tensor | None = None

    def add(self, logits: Tensor, labels: Tensor, ids: Tensor) -> None:
        """Take in what a batch's pass found; none of the tensors may change afterwards.

        Args:
            logits: (m, classes); labels: int64 (m,); ids: int64 (m,), the rows.
        """
        self._held.append((logits.detach(), labels, ids))
        self._values += logits.numel()
        if self._values >= _MOST_HELD:
            self._judge()

    def add_sums(self, sums: Tensor) -> None:
        """Take in the sum of a batch's losses, its samples missed, and its samples: (3,)."""
        self._totals += sums

    @torch.no_grad()
    def sums(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return float64 (3,), losses, samples missed, samples; and which are right, bool (m,)."""
        if logits.dtype is torch.bfloat16:
            logits = logits.float()
        loss = self._loss(logits, labels, reduction="sum").double()
        fitted = right(logits, labels)
        missed = (~fitted).sum().double()
        return torch.stack([loss, missed, loss.new_tensor(float(len(labels)))]), fitted

    def _judge(self) -> None:
        if self._held:
            logits, labels, ids = (torch.cat(some) for some in zip(*self._held, strict=True))
            sums, fitted = self.sums(logits, labels)
            self._totals += sums
            self.missed = ids[_last(~fitted)]
        self._held, self._values = [], 0

    def read(self) -> tuple[float, int]:
        """Return mean loss and samples missed since the last time; waits for a GPU."""
        self._judge()
        loss, missed, count = self._totals.tolist()
        self._totals.zero_()
        return loss / count, round(missed)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs in the middle of an epoch."""
        return {"totals": self._totals, "held": [list(some) for some in self._held]}

    def load(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state` returned."""
        self._totals.copy_(state["totals"])
        device = self._totals.device
        self._held = [(x.to(device), y.to(device), i.to(device)) for x, y, i in state["held"]]
        self._values = sum(x.numel() for x, _, _ in self._held)


def _last(chosen: Tensor) -> Tensor:
    """Return where the last of the chosen are, without waiting for a GPU to count them.

    At most ``SUSPECTS``; where fewer are chosen others fill up.
    """
    places = torch.arange(1, len(chosen) + 1, device=chosen.device)
    return (places * chosen).topk(min(SUSPECTS, len(chosen))).indices
