"""Details of every training of every point, as embedded in the report page."""

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
"""What a click on a point shows, as returned by :func:`of_point`."""
_CURVE, _LOSSES = 40, 24
"""Number of values shown of the fit curve, and at most of a loss curve."""
MOST_POINTS = 1_000
"""Maximum number of points with details on the page, so that browsers can still open it."""
_MOST_LOSSES = 10_000
"""Maximum total number of trainings up to which loss curves are included."""


def details_of(statuses: Sequence[PointStatus]) -> list[Details | None]:
    """Return the details of each point, None before its first probe; probes in order of execution.

    Only the first ``MOST_POINTS`` points are included, and loss curves only up to a total of
    ``_MOST_LOSSES`` trainings.
    """
    shown = statuses[:MOST_POINTS]
    losses = sum(status.probes for status in shown) <= _MOST_LOSSES
    return [of_point(status, losses=losses) if status.record else None for status in shown]


def as_script(value: Any) -> str:
    """Format a value as JSON that is safe inside a script element, whatever text it contains."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def of_point(status: PointStatus, *, losses: bool = True) -> Details:
    """Return the details of a point that has a record."""
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
    """Return a probe as a list in the order that the page's script expects."""
    return [
        probe.n, probe.repeat, probe.verdict, probe.n_errors, round(probe.train_accuracy, 5),
        probe.epochs, probe.cost, round(probe.seconds, 3), int(probe.rejected),
        int(probe.arm != best), ", ".join(f"{k} {v:g}" for k, v in probe.tuned.items()),
        *_losses(probe.loss_curve if losses else ()),
    ]  # fmt: skip


def _ends(status: PointStatus, best: int) -> list[list[int]]:
    """Return the indices of the probes that fitted the largest n and failed at the smallest n.

    Args:
        status: the point; best: index of the best values of the tuned keys.
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
    """Return evenly spaced epochs, including the first and the last, and their losses."""
    if not len(curve):
        return [], []
    last = len(curve) - 1
    places = sorted({round(i * last / (_LOSSES - 1)) for i in range(_LOSSES)})
    losses = [float(curve[place]) for place in places]
    return [p + 1 for p in places], [
        float(f"{loss:.3g}") if math.isfinite(loss) else None for loss in losses
    ]


def _curve(status: PointStatus) -> list[list[float]]:
    """Return pairs of n and the posterior mean of P(fit), over the range of the probed n."""
    history, record = status.history, status.record
    if not history or record is None:
        return []
    tried = [result.n for result in history]
    ns = np.geomspace(min(tried) / 1.2, max(tried) * 1.2, _CURVE)
    chances = posterior(history, record.header.n_limit).mean_chance(ns)
    return [[round(float(n), 2), round(float(p), 4)] for n, p in zip(ns, chances, strict=True)]
