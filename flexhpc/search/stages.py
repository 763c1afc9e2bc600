"""Searches that double the budget until two doublings in succession hardly raise the EMC.

A stage is the part of a search in which the budget is constant; the budget of stage k is the first
budget times 2^k. A training run that fitted at an earlier stage counts as a fit at all later
stages. A training run that failed without diverging is unfinished at later stages, until it is
continued with the larger budget. Each continuation adds an entry to the history.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from flexhpc.search.history import ProbeResult

FINAL_VERDICTS = ("fit", "diverged")
"""Verdicts of training runs that are not continued with a larger budget."""


def results_at_stage(history: Iterable[ProbeResult], stage: int) -> list[ProbeResult]:
    """Return the result of each training run at a stage.

    ``time``, ``failed_after`` and ``share`` are converted to fractions of the budget of this stage.
    The training runs are in the order in which they first appear in the history.
    """
    if stage == 0:
        return list(history)
    return [_result_at_stage(run, stage) for run in training_runs(history)]


def training_runs(history: Iterable[ProbeResult]) -> list[ProbeResult]:
    """Return the last history entry of each training run.

    If ``failed_after`` of the last entry is set and the training run has an earlier entry,
    ``failed_after`` is replaced by the budget of the previous entry divided by the budget of the
    last entry. The training runs are in the order in which they first appear in the history.
    """
    runs: dict[tuple[int, int, int], ProbeResult] = {}
    for entry in history:
        key = entry.n, entry.repeat, entry.arm
        if entry.failed_after is not None and key in runs:
            entry = replace(entry, failed_after=0.5 ** (entry.stage - runs[key].stage))
        runs[key] = entry
    return list(runs.values())


def runs_without_state(history: Iterable[ProbeResult], emc: int, keep: int) -> list[ProbeResult]:
    """Return the training runs whose final states (weights and optimizer) are not kept.

    Among the training runs that can be continued, the states of the ``keep`` runs whose n is
    nearest to the EMC in log n are kept. All other training runs are returned.
    """
    runs = training_runs(history)
    ended = [r for r in runs if r.verdict in FINAL_VERDICTS]
    failed = [r for r in runs if r.verdict not in FINAL_VERDICTS]
    failed.sort(key=lambda r: abs(math.log(r.n / max(emc, 1))))
    return [*ended, *failed[keep:]]


def _result_at_stage(run: ProbeResult, stage: int) -> ProbeResult:
    if run.stage == stage:
        return run
    factor = 0.5 ** (stage - run.stage)
    share, time, failed_after = (
        None if value is None else value * factor
        for value in (run.share, run.time, run.failed_after)
    )
    if run.verdict in FINAL_VERDICTS:
        return replace(run, share=share, time=time, failed_after=failed_after)
    return replace(run, share=share, time=share, unfinished=True, rejected=False)
