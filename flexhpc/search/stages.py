"""Searches that double the budget until a doubling hardly raises the EMC.

A stage is the part of a search with one budget: the first budget, doubled ``stage`` times. A
training run that fitted at an earlier stage fits at all later ones. A training run that failed is
unfinished at later stages until it is continued: then the history has one entry per stage.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from flexhpc.search.history import ProbeResult

FINAL = "diverged"
"""Verdict of failing training runs that cannot be continued."""


def at_stage(history: Iterable[ProbeResult], stage: int) -> list[ProbeResult]:
    """Return each training run once, as it stands at a stage, in the order of their first entries.

    Times and shares become fractions of the stage's budget.
    """
    runs: dict[tuple[int, int, int], ProbeResult] = {}
    for entry in history:
        factor = 0.5 ** (stage - entry.stage)
        runs[entry.n, entry.repeat, entry.arm] = replace(
            entry,
            share=None if entry.share is None else entry.share * factor,
            time=None if entry.time is None else entry.time * factor,
        )
    return [_standing(run, stage) for run in runs.values()]


def without_state(history: Iterable[ProbeResult], emc: int, keep: int) -> list[ProbeResult]:
    """Return the training runs whose final states are not kept.

    These are the ones that are never continued, and, if more than ``keep`` are left, the ones whose
    n is farthest from the EMC.
    """
    runs = {(r.n, r.repeat, r.arm): r for r in history}.values()
    ended = [r for r in runs if r.fit or r.verdict == FINAL]
    failed = [r for r in runs if not r.fit and r.verdict != FINAL]
    failed.sort(key=lambda r: abs(math.log(r.n / max(emc, 1))))
    return [*ended, *failed[keep:]]


def _standing(run: ProbeResult, stage: int) -> ProbeResult:
    if run.stage == stage or run.fit or run.verdict == FINAL:
        return run
    return replace(run, unfinished=True, rejected=False, time=run.share)
