"""What goes into one training and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

Verdict = Literal["fit", "not_fit", "saddle", "unconverged", "unstable", "diverged"]

MakeModel = Callable[[], nn.Module]
"""Builds an untrained network from torch's global random state."""


@dataclass(frozen=True, kw_only=True)
class ProbeData:
    """The samples and seeds of one probe.

    Attributes:
        inputs: float32 (n, ...), standardised, on the device that trains; or uint8, that are when
            they are used.
        labels: int64 (n,), or (n, length) of sequences, on the same device.
        init_seed: seeds the initialisation and anything random inside the network.
        order_seed: seeds the order of samples in every epoch.
        prompt: first tokens of a sequence that need not be right.
        moments: what bytes are standardised with: float32, subtracted first, then divided by.
    """

    inputs: Tensor
    labels: Tensor
    init_seed: int
    order_seed: int
    prompt: int = 0
    moments: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one training ended.

    Attributes:
        verdict: see the vocabulary in docs/concepts.md.
        n_errors: samples missed at the end, in eval mode.
        loss: mean cross-entropy over the subset at the end, in eval mode, without regularisers.
        epochs: passes begun; steps: parameter updates; cost: samples trained on, in total.
        seconds: wall time, including the time before an interruption.
        fitted: bool (n,), in the order of the subset: classified right at the end.
        readings: convergence readings by name.
        rejected: a convergence gate refused it: its failure is not one of capacity.
        loss_curve: float32, a loss per epoch; error_curve: int32, samples missed; of what they are
            says ``training.curves``.
        forgotten: int32 (n,), in the order of the subset, times that each was forgotten, -1 of
            those that were never right; None where that was not counted.
    """

    verdict: Verdict
    n_errors: int
    loss: float
    epochs: int
    steps: int
    cost: int
    seconds: float
    fitted: NDArray[np.bool_]
    readings: dict[str, float] = field(default_factory=dict)
    rejected: bool = False
    loss_curve: NDArray[np.float32]
    error_curve: NDArray[np.int32]
    forgotten: NDArray[np.int32] | None = None


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """How a measurement and its trainings talk to the outside; everything is optional.

    Attributes:
        stopping: asked at every step; True saves a checkpoint and raises Interrupted.
        holds: whether this process may still write: the checkpoint, and the point.
        progress: called after every epoch with ``epoch``, ``epochs`` (the budget; 0 has no end),
            ``n_errors`` (samples missed) and ``loss``, and by a probe also with ``n``, ``repeat``
            and ``elapsed`` (seconds).
        trained: called with the network at the end of a training, in eval mode; what it returns
            joins the readings. In a group every process calls its own.
        checkpoint: file for the state in progress; a training resumes from it if it is there.
        checkpoint_every: seconds between checkpoints.
        key: identifies the probe inside the checkpoint, so that another's is never taken.
        forgetting: whether to count how often each sample is forgotten.
    """

    stopping: Callable[[], bool] = lambda: False
    holds: Callable[[], bool] = lambda: True
    progress: Callable[[dict[str, Any]], None] = lambda _: None
    trained: Callable[[nn.Module], dict[str, float]] = lambda _: {}
    checkpoint: Path | None = None
    checkpoint_every: float = 60.0
    key: str = ""
    forgetting: bool = False
