"""Every training of every point, as the report's page is given it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from flexhpc.analysis.censoring import why_bound
from flexhpc.analysis.endings import ending_text
from flexhpc.analysis.text import bracket_text, emc_text, ratio_text
from flexhpc.search.fit_curve import posterior
from flexhpc.store.record import ProbeSummary
from flexhpc.store.status import PointStatus

Details = dict[str, Any]
"""What a click on a point shows, of :func:`of_point`."""
_CURVE, _LOSSES = 40, 24
"""How many places of the fit curve and of the curve of losses are shown."""
MOST_POINTS = 1_000
"""Points whose trainings are on the page, so that it can still be opened."""
_MOST_LOSSES = 10_000
"""Trainings up to which each has its curve of losses on the page."""


def details_of(statuses: Sequence[PointStatus]) -> list[Details | None]:
    """Return of every point what a click on it shows; its probes in the order they were run.

    Of very many points of the first thousand, of very many trainings without their losses.
    """
    shown = statuses[:MOST_POINTS]
    losses = sum(status.probes for status in shown) <= _MOST_LOSSES
    return [of_point(status, losses=losses) if status.record else None for status in shown]


def as_script(value: Any) -> str:
    """Return JSON that may stand inside of a script element, whatever texts it holds."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def of_point(status: PointStatus, *, losses: bool = True) -> Details:
    """Return what is known of a point that has a record."""
    record, estimate = status.record, status.estimate
    assert record is not None
    best = 0 if estimate is None else estimate.arm
    return {
        "label": status.point.label or status.point.id,
        "emc": emc_text(estimate),
        "lo": None if estimate is None else estimate.emc_lo,
        "hi": None if estimate is None else estimate.emc_hi,
        "exact": estimate is not None and estimate.censored == "none",
        "by_curve": estimate is not None
        and estimate.censored == "none"
        and estimate.estimand != "last_fit",
        "why": why_bound(status),
        "ratio": ratio_text(estimate, record.header.params),
        "params": record.header.params,
        "bracket": bracket_text(status.bracket),
        "ends": _ends(status, best),
        "ended": ending_text(status),
        "curve": _curve(status),
        "probes": [_probe(probe, best, losses=losses) for probe in record.probes],
    }


def _probe(probe: ProbeSummary, best: int, *, losses: bool) -> list[Any]:
    """Return a probe as the page's script takes it apart."""
    return [
        probe.n, probe.repeat, probe.verdict, probe.n_errors, round(probe.train_accuracy, 5),
        probe.epochs, probe.cost, round(probe.seconds, 3), int(probe.rejected),
        int(probe.arm != best), ", ".join(f"{k} {v:g}" for k, v in probe.tuned.items()),
        *_losses(probe.loss_curve if losses else ()),
    ]  # fmt: skip


def _ends(status: PointStatus, best: int) -> list[list[int]]:
    """Return the trainings at the largest n that fitted, and at the smallest that failed.

    Args:
        status: of the point; best: index of the best values of tuned keys.
    """
    assert status.record is not None
    bracket = status.bracket
    counted = [
        (number, probe)
        for number, probe in enumerate(status.record.probes)
        if probe.arm == best and not probe.rejected
    ]
    return [
        [i for i, one in counted if one.n == bracket.largest_fit and one.verdict == "fit"],
        [i for i, one in counted if one.n == bracket.smallest_fail and one.verdict != "fit"],
    ]


def _losses(curve: Any) -> tuple[list[int], list[float | None]]:
    """Return epochs and losses, some of them, the first and the last among them."""
    if not len(curve):
        return [], []
    last = len(curve) - 1
    places = sorted({round(i * last / (_LOSSES - 1)) for i in range(_LOSSES)})
    losses = [float(curve[place]) for place in places]
    return [p + 1 for p in places], [
        float(f"{loss:.3g}") if math.isfinite(loss) else None for loss in losses
    ]


def _curve(status: PointStatus) -> list[list[float]]:
    """Return the posterior mean of P(fit) at some n, around those that were tried."""
    history, record = status.history, status.record
    if not history or record is None:
        return []
    tried = [result.n for result in history]
    ns = np.geomspace(min(tried) / 1.2, max(tried) * 1.2, _CURVE)
    chances = posterior(history, record.header.n_limit).mean_chance(ns)
    return [[round(float(n), 2), round(float(p), 4)] for n, p in zip(ns, chances, strict=True)]
