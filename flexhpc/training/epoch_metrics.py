"""Loss, missed samples and forgetting events of an epoch, from its training forward passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flexhpc.training.losses import cross_entropy, missed_samples

MAX_SUSPECTS = 16
"""Maximum number of recently missed samples that are evaluated before all other samples."""
_MAX_PENDING = 2**16
Loss = Callable[..., Tensor]


class Forgetting:
    """Counts forgetting events: a sample is missed after its previous evaluation was correct.

    Toneva et al. 2019, arXiv 1812.05159.

    Args:
        n: number of samples; device: device of the counters.
    """

    def __init__(self, n: int, device: torch.device) -> None:
        self._events = torch.full((n,), -1, dtype=torch.int32, device=device)
        self._correct = torch.zeros(n, dtype=torch.bool, device=device)

    def update(self, ids: Tensor, missed: Tensor) -> None:
        """Add an evaluation of distinct samples.

        Args:
            ids: rows of the samples, int64 (m,); missed: whether each is missed, bool (m,).
        """
        minimum = (~missed).int() - 1  # -1 until the first correct evaluation
        self._events[ids] = torch.maximum(
            self._events[ids] + (missed & self._correct[ids]), minimum
        )
        self._correct[ids] = ~missed

    def events(self) -> NDArray[np.int32]:
        """Return the forgetting events, int32 (n,); -1 for samples that were never correct."""
        return self._events.cpu().numpy()

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"events": self._events, "correct": self._correct}

    def load(self, state: dict[str, Any]) -> None:
        """Restore a state that :meth:`state` returned."""
        self._events.copy_(state["events"])
        self._correct.copy_(state["correct"])


class EpochMetrics:
    """Mean loss and missed samples of an epoch; each batch is evaluated before its update.

    The logits of several batches are collected and evaluated together, so that the cost per update
    is negligible. Only their number determines when they are evaluated, so an epoch that was
    interrupted and resumed is bit-identical.

    Args:
        device: device of the sums.
        loss: loss as a function of logits (or log-probabilities) and labels.
        prompt: number of first tokens of a sequence that need not be correct.
        forgetting: counter of forgetting events to update with every batch.
    """

    def __init__(
        self, device: torch.device, loss: Loss = cross_entropy, prompt: int = 0,
        forgetting: Forgetting | None = None,
    ) -> None:  # fmt: skip
        self._loss, self._prompt, self.forgetting = loss, prompt, forgetting
        self._totals = torch.zeros(2, dtype=torch.float64, device=device)
        self._count = 0
        self._pending: list[tuple[Tensor, Tensor, Tensor]] = []
        self._pending_values = 0
        self._last_evaluated: tuple[Tensor, Tensor] | None = None

    def add(self, logits: Tensor, labels: Tensor, ids: Tensor) -> None:
        """Add the outputs of a batch; none of the tensors may change afterwards.

        Args:
            logits, labels: see :func:`cross_entropy`; ids: rows of the samples, int64 (m,).
        """
        self._pending.append((logits, labels, ids))
        self._count += len(labels)
        self._pending_values += logits.numel()
        if self._pending_values >= _MAX_PENDING:
            self._evaluate_pending()

    def add_sums(self, sums: Tensor, count: int) -> None:
        """Add the sum of losses and the number of missed samples, (2,), of ``count`` samples."""
        self._totals += sums
        self._count += count

    @torch.no_grad()
    def sums(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return [sum of losses, number missed], float64 (2,), and which are missed, bool (m,)."""
        if logits.dtype is torch.bfloat16:
            logits = logits.float()
        loss = self._loss(logits, labels, reduction="sum")
        missed = missed_samples(logits, labels, self._prompt)
        return torch.stack([loss.double(), missed.sum().double()]), missed

    def _evaluate_pending(self) -> None:
        if self._pending:
            logits, labels, ids = (torch.cat(rows) for rows in zip(*self._pending, strict=True))
            sums, missed = self.sums(logits, labels)
            self._totals += sums
            self._last_evaluated = ids, missed
            if self.forgetting is not None:
                self.forgetting.update(ids, missed)
        self._pending, self._pending_values = [], 0

    def read(self, n: int) -> tuple[float, int]:
        """Return mean loss and missed samples since the last call; synchronizes with the device.

        If the budget ended within the epoch, the number of missed samples is scaled up to all ``n``
        samples, because otherwise a shorter epoch would appear to be an improvement.
        """
        self._evaluate_pending()
        loss, n_missed = self._totals.tolist()
        count, self._count = self._count, 0
        self._totals.zero_()
        return loss / count, round(n_missed * n / count)

    def recently_missed(self) -> Tensor | None:
        """Return rows missed late in the epoch, int64 (at most ``MAX_SUSPECTS``,), None if unknown.

        Synchronizes with the device.
        """
        if self._last_evaluated is None:
            return None
        ids, missed = self._last_evaluated
        return ids[missed.nonzero().flatten()[-MAX_SUSPECTS:]]

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint, at the end or in the middle of an epoch."""
        pending = [list(rows) for rows in self._pending]
        return {"totals": self._totals, "count": self._count, "pending": pending}

    def load(self, state: dict[str, Any]) -> None:
        """Restore a state that :meth:`state` returned."""
        self._totals.copy_(state["totals"])
        self._count = state["count"]
        device = self._totals.device
        self._pending = [(x.to(device), y.to(device), i.to(device)) for x, y, i in state["pending"]]
        self._pending_values = sum(x.numel() for x, _, _ in self._pending)
