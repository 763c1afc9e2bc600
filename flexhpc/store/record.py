"""Content of a point file: header, probes, estimate and evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexhpc.config.sections.training import Procedure
from flexhpc.search import Estimate, ProbeResult


@dataclass(frozen=True, kw_only=True)
class Header:
    """Definition of a point and properties of its model and data.

    Attributes:
        point: canonical JSON of the point.
        point_id: hash of ``point``.
        params: number of trained parameters; 0 if a custom trainer has no network.
        data_fingerprint: hash of the content of the training set.
        n_total: number of samples in the training set.
        n_limit: largest n that can be probed (samples).
        conflicts: number of groups of identical inputs with different labels.
        unfittable: smallest number of samples that a model can miss, given these conflicts.
        classes: number of classes.
        bits: number of bits of the trained parameters; 0 if a custom trainer has no network.
        n_pool: number of samples from which subsets are drawn.
        conflict_groups: groups of identical inputs with different labels among the ``n_pool``
            samples, as a JSON list of pairs [samples of each label in a group, number of such
            groups]. ``[[[2, 1], 30]]`` means 30 groups, each with two samples of one label and one
            sample of another label.
        params_total: number of parameters of the network, including frozen ones; 0 if unknown.
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
    n_pool: int
    conflict_groups: str
    params_total: int = 0


@dataclass(frozen=True, kw_only=True)
class ProbeSummary:
    """One finished probe without its masks and curves.

    Attributes:
        n: number of samples in the subset.
        repeat: index among the training runs with this n and arm: 0, 1, 2, ...
        seeds: seed of each random stream: init, subset, labels, order.
        verdict: result of the training run; see docs/concepts.md.
        n_errors: number of samples missed at the end.
        train_accuracy: 1 - n_errors / n.
        loss: training loss at the end.
        epochs: number of epochs started.
        steps: number of updates.
        cost: number of sample passes.
        seconds: wall time (seconds).
        finished: time at which the probe ended (seconds since the epoch).
        metrics: convergence metrics by name.
        machine: host, device and software versions.
        rejected: whether a convergence gate attributes the failure to training, not to capacity.
        arm: index of the combination of values of the tuned keys.
        stage: number of times that the budget had been doubled. A training run that is continued
            with a larger budget has one probe per stage; epochs, steps, cost and seconds of each
            probe are totals since the first update.
        tuned: values of the tuned keys, by dotted path.
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
    metrics: Mapping[str, float] = field(default_factory=dict)
    machine: Mapping[str, str] = field(default_factory=dict)
    rejected: bool = False
    arm: int = 0
    stage: int = 0
    tuned: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ProbeRecord(ProbeSummary):
    """One finished probe with its masks and curves.

    Attributes:
        subset: sorted global sample ids, int64 (n,).
        fitted: whether each sample of the subset was fitted at the end, bool (n,).
        loss_curve: loss after each epoch, float32 (epochs,).
        error_curve: number of samples missed after each epoch, int32 (epochs,).
        unseen: sorted global ids of evaluated samples outside the subset, int64 (m,); None if
            there are none.
        unseen_fitted: whether each sample of ``unseen`` was classified correctly, bool (m,).
        forgotten: how often each sample of the subset was forgotten during training, int32 (n,);
            -1 for samples that were never classified correctly. None if this was not counted.
    """

    subset: NDArray[np.int64] = field(repr=False)
    fitted: NDArray[np.bool_] = field(repr=False)
    loss_curve: NDArray[np.float32] = field(repr=False)
    error_curve: NDArray[np.int32] = field(repr=False)
    unseen: NDArray[np.int64] | None = field(default=None, repr=False)
    unseen_fitted: NDArray[np.bool_] | None = field(default=None, repr=False)
    forgotten: NDArray[np.int32] | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class PointRecord:
    """Content of a point file without the masks and curves.

    Attributes:
        header: definition of the point.
        probes: finished probes, in the order in which they were appended.
        estimate: final estimate; None while the search is running.
        evaluation: evaluation metrics by name; None if the model was not evaluated. The key
            ``asked`` contains the requested number of training samples and budget, and the key
            ``arm`` contains the index of the evaluated arm.
        estimates: number of probes -> final estimate that is based on these probes, in ascending
            order of the number. There are several estimates if the search was continued to a higher
            precision.
    """

    header: Header
    probes: list[ProbeSummary]
    estimate: Estimate | None
    evaluation: dict[str, Any] | None
    estimates: Mapping[int, Estimate] = field(default_factory=dict)

    def at_probe_count(self, probes: int) -> PointRecord:
        """Return the record as it was when a search ended with this number of probes."""
        estimate = self.estimates[probes]
        return replace(self, probes=self.probes[:probes], estimate=estimate)

    @property
    def finished_runs(self) -> list[ProbeSummary]:
        """Last probe of each finished training run.

        A training run is finished if it fitted all its samples, or if its last probe had the
        largest budget of all probes of the point so far.
        """
        last = max((probe.stage for probe in self.probes), default=0)
        return [run for run in self.training_runs if run.verdict == "fit" or run.stage == last]

    @property
    def training_runs(self) -> list[ProbeSummary]:
        """Last probe of each training run. A continued training run has several probes."""
        return list({(p.n, p.repeat, p.arm): p for p in self.probes}.values())

    def has_evaluation(self, requested: Mapping[str, int] | None) -> bool:
        """Return whether the requested evaluation of the estimate's arm is stored.

        Args:
            requested: requested number of samples and budget. If None, no evaluation is requested,
                and the result is True.
        """
        if requested is None:
            return True
        stored, estimate = self.evaluation, self.estimate
        if stored is None or stored["asked"] != requested:
            return False
        if estimate is None:
            return True
        has_fixed_budget = not {"steps", "epochs"}.isdisjoint(requested)
        same_budget = has_fixed_budget or stored.get("stage", 0) == estimate.stage
        return bool(stored["arm"] == estimate.arm and same_budget)


def to_history(probes: Iterable[ProbeSummary], training: Procedure) -> list[ProbeResult]:
    """Convert stored probes to a history, from which a search can be resumed by replay."""
    doubles = training.doubling_settings is not None
    history = []
    for p in probes:
        share = _budget_share(p, training)
        time: float | None = None
        failed_after: float | None = None
        if p.verdict == "fit" and training.extends_smaller_budgets:
            time = share
        elif p.verdict == "fit" and doubles:  # it fitted at an unknown time within the budget
            time, failed_after = 1.0, 0.0
        result = ProbeResult(
            n=p.n, repeat=p.repeat, verdict=p.verdict, n_errors=p.n_errors, cost=p.cost,
            share=share, rejected=p.rejected, arm=p.arm, time=time, stage=p.stage,
            failed_after=failed_after,
        )  # fmt: skip
        history.append(result)
    return history


def _budget_share(probe: ProbeSummary, training: Procedure) -> float | None:
    """Return the fraction of the budget (without extensions) that a probe used.

    Return None if training has no budget.
    """
    if training.budget is None:
        return None
    key, budget = training.budget
    budget <<= probe.stage
    used = {"steps": probe.steps, "gradient_evaluations": probe.cost, "epochs": probe.epochs}
    return used[key] / budget
