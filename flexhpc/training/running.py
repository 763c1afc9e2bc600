"""Loss and errors of an epoch, from the forward passes that its own updates make anyway."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from flexhpc.training.forgetting import Forgetting
from flexhpc.training.losses import cross_entropy, missed

SUSPECTS = 16
"""Samples that are asked first whether all fit."""
_MOST_HELD = 2**16
Loss = Callable[..., Tensor]


class Running:
    """Mean loss and samples missed over the batches of an epoch, each before its own update.

    That is what a training loop prints as its loss. Logits are held and judged many batches at
    once, so that a step pays next to nothing; when that is depends on their number alone, so an
    interrupted epoch comes to the same bits.

    Args:
        device: where to sum up.
        loss: what makes a loss of the logits that are taken in, or of log-probabilities.
        prompt: first tokens of a sequence that need not be right.
        forgetting: what else is told which samples were missed.
    """

    def __init__(
        self, device: torch.device, loss: Loss = cross_entropy, prompt: int = 0,
        forgetting: Forgetting | None = None,
    ) -> None:  # fmt: skip
        self._loss, self._prompt, self.forgetting = loss, prompt, forgetting
        self._totals = torch.zeros(2, dtype=torch.float64, device=device)
        self._count = 0
        self._held: list[tuple[Tensor, Tensor, Tensor]] = []
        self._values = 0
        self._judged: tuple[Tensor, Tensor] | None = None

    def add(self, logits: Tensor, labels: Tensor, ids: Tensor) -> None:
        """Take in what a batch's pass found; none of the tensors may change afterwards.

        Args:
            logits, labels: see :func:`cross_entropy`; ids: int64 (m,), the rows.
        """
        self._held.append((logits, labels, ids))
        self._count += len(labels)
        self._values += logits.numel()
        if self._values >= _MOST_HELD:
            self._judge()

    def add_sums(self, sums: Tensor, count: int) -> None:
        """Take in the sum of a batch's losses and its samples missed, (2,), and its samples."""
        self._totals += sums
        self._count += count

    @torch.no_grad()
    def sums(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of losses and the samples missed, float64 (2,), and which, bool (m,)."""
        if logits.dtype is torch.bfloat16:
            logits = logits.float()
        loss = self._loss(logits, labels, reduction="sum")
        wrong = missed(logits, labels, self._prompt)
        return torch.stack([loss.double(), wrong.sum().double()]), wrong

    def _judge(self) -> None:
        if self._held:
            logits, labels, ids = (torch.cat(some) for some in zip(*self._held, strict=True))
            sums, wrong = self.sums(logits, labels)
            self._totals += sums
            self._judged = ids, wrong
            if self.forgetting is not None:
                self.forgetting.saw(ids, wrong)
        self._held, self._values = [], 0

    def read(self, n: int) -> tuple[float, int]:
        """Return mean loss and samples missed since the last time; waits for a GPU.

        Where a budget ended within the epoch, what was missed is scaled up to all ``n`` samples, or
        a shorter epoch would look like a better one.
        """
        self._judge()
        loss, missed = self._totals.tolist()
        count, self._count = self._count, 0
        self._totals.zero_()
        return loss / count, round(missed * n / count)

    def missed(self) -> Tensor | None:
        """Return rows that were missed late in the epoch, int64 (``SUSPECTS`` at most,).

        None where that is not known. Waits for a GPU.
        """
        if self._judged is None:
            return None
        ids, wrong = self._judged
        return ids[wrong.nonzero().flatten()[-SUSPECTS:]]

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs in the middle of an epoch."""
        held = [list(some) for some in self._held]
        return {"totals": self._totals, "count": self._count, "held": held}

    def load(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state` returned."""
        self._totals.copy_(state["totals"])
        self._count = state["count"]
        device = self._totals.device
        self._held = [(x.to(device), y.to(device), i.to(device)) for x, y, i in state["held"]]
        self._values = sum(x.numel() for x, _, _ in self._held)
