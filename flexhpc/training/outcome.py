"""Inputs and results of one training run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

Verdict = Literal["fit", "not_fit", "saddle", "unconverged", "unstable", "diverged"]

ModelFactory = Callable[[], nn.Module]
"""Function that builds an untrained model. Random weights come from torch's global generator."""


@dataclass(frozen=True, kw_only=True)
class ProbeData:
    """The samples and seeds of one probe.

    Attributes:
        inputs: standardised float32 (n, ...), or uint8 (n, ...). uint8 inputs are standardised
            whenever a batch is used.
        labels: int64 (n,), or (n, length) for sequences; on the device of ``inputs``.
        init_seed: seed of the initialisation and of all random operations of the model.
        order_seed: seed of the order of samples in every epoch.
        prompt: number of initial tokens of a sequence that need not be predicted correctly.
        moments: mean and standard deviation, float32, that standardise uint8 inputs; None if the
            inputs are float32.
    """

    inputs: Tensor
    labels: Tensor
    init_seed: int
    order_seed: int
    prompt: int = 0
    moments: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Result of one training run.

    Attributes:
        verdict: how the training run ended; docs/concepts.md explains the values.
        n_errors: number of samples missed at the end, in eval mode.
        loss: mean cross-entropy over all samples at the end, in eval mode, without regularisers.
        epochs: number of epochs; an incomplete last epoch counts as a whole epoch.
        steps: number of updates.
        cost: number of sample passes: sum of the batch sizes of all updates (with SAM, twice this
            sum).
        seconds: wall time, including the time before an interruption.
        fitted: whether each sample is classified correctly at the end, bool (n,).
        metrics: metrics from the gates and from ``on_train_end``; the keys are their names.
        rejected: whether a convergence gate rejected the training run.
        loss_curve: mean loss in every epoch, float32 (epochs,). The key ``training.curves``
            determines how it is computed.
        error_curve: number of missed samples in every epoch, int32 (epochs,).
        forgotten: number of forgetting events of each sample, int32 (n,); -1 for samples that were
            never correct. None if forgetting events were not counted.
    """

    verdict: Verdict
    n_errors: int
    loss: float
    epochs: int
    steps: int
    cost: int
    seconds: float
    fitted: NDArray[np.bool_]
    metrics: dict[str, float] = field(default_factory=dict)
    rejected: bool = False
    loss_curve: NDArray[np.float32]
    error_curve: NDArray[np.int32]
    forgotten: NDArray[np.int32] | None = None


@dataclass(frozen=True, kw_only=True)
class Callbacks:
    """Functions that a training run calls, and files in which it saves its state; all optional.

    Attributes:
        should_stop: called after every update; if it returns True, training saves a checkpoint and
            raises Interrupted.
        owns_claim: returns whether this process still owns its claim on the point. If it returns
            False, this process must not write the checkpoint or the results.
        on_progress: called after every epoch with a mapping: ``epoch``, ``epochs`` (budget in
            epochs; 0 without a budget), ``n_errors`` (number of missed samples) and ``loss``; in a
            probe also ``n``, ``repeat`` and ``elapsed`` (seconds).
        on_train_end: called with the trained network in eval mode, by every process of a group. The
            metrics that it returns are recorded.
        checkpoint: file in which training saves its state. If the file exists, training resumes
            from this state.
        checkpoint_every: seconds between checkpoints.
        final_state: file in which training saves its state after the last update that would be the
            same with a larger budget. Training resumes from it if ``checkpoint`` does not exist.
        key: text that identifies the training run; a saved state with another key is ignored.
        forgetting: whether to count the forgetting events of each sample.
    """

    should_stop: Callable[[], bool] = lambda: False
    owns_claim: Callable[[], bool] = lambda: True
    on_progress: Callable[[dict[str, Any]], None] = lambda _: None
    on_train_end: Callable[[nn.Module], dict[str, float]] = lambda _: {}
    checkpoint: Path | None = None
    final_state: Path | None = None
    checkpoint_every: float = 60.0
    key: str = ""
    forgetting: bool = False
