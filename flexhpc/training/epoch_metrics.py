"""Loss, missed samples and forgetting events of an epoch.

They are computed from the forward passes of training, so they need no separate evaluation.
"""

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


class ForgettingCounter:
    """Counter of forgetting events (Toneva et al. 2019, arXiv 1812.05159).

    A sample is forgotten if it is missed although it was correct in its previous evaluation.

    Args:
        n: number of samples.
        device: device of the counters.
    """

    def __init__(self, n: int, device: torch.device) -> None:
        self._events = torch.full((n,), -1, dtype=torch.int32, device=device)
        self._correct = torch.zeros(n, dtype=torch.bool, device=device)

    def update(self, ids: Tensor, missed: Tensor) -> None:
        """Count the forgetting events in an evaluation of some samples.

        Args:
            ids: indices of the samples, int64 (m,), each at most once.
            missed: whether each of these samples is missed, bool (m,).
        """
        minimum = (~missed).int() - 1  # -1 until the first correct evaluation
        self._events[ids] = torch.maximum(
            self._events[ids] + (missed & self._correct[ids]), minimum
        )
        self._correct[ids] = ~missed

    def events(self) -> NDArray[np.int32]:
        """Return the number of forgetting events of each sample, int32 (n,).

        The number is -1 for samples that were never correct.
        """
        return self._events.cpu().numpy()

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"events": self._events, "correct": self._correct}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state that :meth:`state_dict` returned."""
        self._events.copy_(state["events"])
        self._correct.copy_(state["correct"])


class EpochMetrics:
    """Mean loss and number of missed samples of an epoch.

    They are computed from the logits of each batch before its update. The logits of several
    batches are collected and evaluated together, so that the cost per update is negligible. The
    number of collected logits alone determines when they are evaluated, so an epoch that was
    interrupted and resumed is bit-identical to an uninterrupted epoch.

    Args:
        device: device of the sums.
        loss: function that computes the loss from logits (or log-probabilities) and labels.
        prompt: number of initial tokens of a sequence that need not be predicted correctly.
        forgetting: counter of forgetting events, which every batch updates; None if not needed.
    """

    def __init__(
        self, device: torch.device, loss: Callable[..., Tensor] = cross_entropy, prompt: int = 0,
        forgetting: ForgettingCounter | None = None,
    ) -> None:  # fmt: skip
        self._loss, self._prompt, self.forgetting = loss, prompt, forgetting
        self._totals = torch.zeros(2, dtype=torch.float64, device=device)
        self._count = 0
        self._pending: list[tuple[Tensor, Tensor, Tensor]] = []
        self._pending_values = 0
        self._last_evaluated: tuple[Tensor, Tensor] | None = None

    def add(self, logits: Tensor, labels: Tensor, ids: Tensor) -> None:
        """Add the outputs of a batch; the caller must not change these tensors afterwards.

        Args:
            logits, labels: see :func:`cross_entropy`.
            ids: indices of the samples, int64 (m,).
        """
        self._pending.append((logits, labels, ids))
        self._count += len(labels)
        self._pending_values += logits.numel()
        if self._pending_values >= _MAX_PENDING:
            self._evaluate_pending()

    def add_sums(self, sums: Tensor, count: int) -> None:
        """Add the results of samples that were evaluated with :meth:`sums_and_missed`.

        Args:
            sums: sum of losses and number of missed samples, (2,).
            count: number of evaluated samples.
        """
        self._totals += sums
        self._count += count

    @torch.no_grad()
    def sums_and_missed(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate m samples without adding the results to the metrics.

        Returns:
            Two tensors: the sum of losses and the number of missed samples, float64 (2,); and
            whether each sample is missed, bool (m,).
        """
        if logits.dtype is torch.bfloat16:
            logits = logits.float()
        loss = self._loss(logits, labels, reduction="sum")
        missed = missed_samples(logits, labels, self._prompt)
        return torch.stack([loss.double(), missed.sum().double()]), missed

    def _evaluate_pending(self) -> None:
        if self._pending:
            logits, labels, ids = (torch.cat(rows) for rows in zip(*self._pending, strict=True))
            sums, missed = self.sums_and_missed(logits, labels)
            self._totals += sums
            self._last_evaluated = ids, missed
            if self.forgetting is not None:
                self.forgetting.update(ids, missed)
        self._pending, self._pending_values = [], 0

    def read_and_reset(self, n: int) -> tuple[float, int]:
        """Return the mean loss and the number of missed samples since the last call; reset both.

        If the budget ended within the epoch, the number of missed samples is extrapolated to a
        whole epoch (``n`` samples), because otherwise the shorter epoch would appear to be an
        improvement. This call synchronizes with the device.
        """
        self._evaluate_pending()
        loss, n_missed = self._totals.tolist()
        count, self._count = self._count, 0
        self._totals.zero_()
        return loss / count, round(n_missed * n / count)

    def recently_missed(self) -> Tensor | None:
        """Return the indices of up to ``MAX_SUSPECTS`` samples that were missed late in an epoch.

        This call synchronizes with the device.

        Returns:
            int64 (k,); None if no batch was evaluated yet, for example after resuming.
        """
        if self._last_evaluated is None:
            return None
        ids, missed = self._last_evaluated
        return ids[missed.nonzero().flatten()[-MAX_SUSPECTS:]]

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint, which may be saved within an epoch."""
        pending = [list(rows) for rows in self._pending]
        return {"totals": self._totals, "count": self._count, "pending": pending}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state that :meth:`state_dict` returned."""
        self._totals.copy_(state["totals"])
        self._count = state["count"]
        device = self._totals.device
        self._pending = [(x.to(device), y.to(device), i.to(device)) for x, y, i in state["pending"]]
        self._pending_values = sum(x.numel() for x, _, _ in self._pending)
