"""What the file of a point says: its header, its probes, its estimate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a point is and what it was measured on.

    Attributes:
        point: canonical JSON; point_id: its hash.
        params: trainable parameters; 0 where a trainer has no network.
        data_fingerprint: content of the training set; n_total: its samples.
        n_limit: largest n that can be tried.
        conflicts: groups of identical inputs with different labels; unfittable: samples that stand
            in the way of a perfect fit.
        classes: number of classes; bits: that the trained numbers hold. 0 where an older file does
            not say.
        n_pool: samples that may be drawn, 0 where an older file does not say.
        conflict_groups: JSON of the groups of identical inputs with different labels that can be
            drawn, by the samples of each label that they hold: ``[[[2, 1], 30]]`` are 30 groups of
            two samples against one; empty where an older file does not say.
    """

    point: str
    point_id: str
    params: int
    data_fingerprint: str
    n_total: int
    n_limit: int
    conflicts: int
    unfittable: int
    classes: int
    bits: int
    n_pool: int = 0
    conflict_groups: str = ""


@dataclass(frozen=True, kw_only=True)
class ProbeSummary:
    """One finished probe without its masks.

    Attributes:
        seeds: by stream: init, subset, labels, order.
        train_accuracy: 1 - n_errors / n.
        cost: sample passes; seconds: wall time; finished: when it ended (seconds since the epoch).
        readings: convergence readings.
        machine: host, device and versions.
        rejected: a convergence gate refused it, so it says nothing about capacity.
        arm: which values of the tuned keys it was trained with; tuned: these, by dotted path.
        loss_curve: float32, after each epoch.
    """

    n: int
    repeat: int
    seeds: Mapping[str, int]
    verdict: str
    n_errors: int
    train_accuracy: float
    loss: float
    epochs: int
    steps: int
    cost: int
    seconds: float
    finished: float
    readings: Mapping[str, float] = field(default_factory=dict)
    machine: Mapping[str, str] = field(default_factory=dict)
    rejected: bool = False
    arm: int = 0
    tuned: Mapping[str, float] = field(default_factory=dict)
    loss_curve: NDArray[np.float32] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class ProbeRecord(ProbeSummary):
    """One finished probe.

    Attributes:
        subset: sorted global sample ids, int64 (n,); fitted: bool (n,), in the same order.
        error_curve: int32, samples missed after each epoch.
        unseen: sorted global ids of samples outside the subset that were asked for as well, int64
            (m,); unseen_fitted: bool (m,), in the same order. None where none were.
        forgotten: int32 (n,), in the order of the subset, times that each sample was forgotten
            while it was trained on, -1 of those that were never right; None where that was not
            counted.
    """

    subset: NDArray[np.int64] = field(repr=False)
    fitted: NDArray[np.bool_] = field(repr=False)
    error_curve: NDArray[np.int32] = field(repr=False)
    unseen: NDArray[np.int64] | None = field(default=None, repr=False)
    unseen_fitted: NDArray[np.bool_] | None = field(default=None, repr=False)
    forgotten: NDArray[np.int32] | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class PointRecord:
    """All that a point's file says, but for the masks.

    Attributes:
        estimate: the final estimate's fields, or None while the search goes on.
        evaluation: how well the model generalizes, by name; None where it was not evaluated.
            ``asked`` says on how many samples it was to be trained and for how long.
    """

    header: Header
    probes: list[ProbeSummary]
    estimate: dict[str, Any] | None
    evaluation: dict[str, Any] | None

    def evaluated(self, asked: Mapping[str, int] | None) -> bool:
        """Return whether the evaluation that is asked for is there; None asks for none."""
        return asked is None or (self.evaluation is not None and self.evaluation["asked"] == asked)

    def done(self, asked: Mapping[str, int] | None) -> bool:
        """Return whether all is there: the estimate, and the evaluation as it is asked for."""
        return self.estimate is not None and self.evaluated(asked)

    def seen_by(self, asked: Mapping[str, int] | None) -> PointRecord:
        """Return it without an evaluation of another size or budget than is asked for."""
        return self if self.evaluated(asked) else replace(self, evaluation=None)
