"""Details and training runs of each point, which the report page embeds as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexhpc.analysis.reasons import censoring_reason, ending_text
from flexhpc.analysis.text import bracket_text, emc_text, point_title, ratio_text
from flexhpc.errors import PointError
from flexhpc.search import History
from flexhpc.search.fit_curve import posterior
from flexhpc.store import RunFolder, read_loss_curves
from flexhpc.store.record import ProbeSummary
from flexhpc.store.status import PointStatus

Details = dict[str, Any]
"""Data that the report page shows after a click on a point; see :func:`point_details`."""
Curve = Sequence[float] | NDArray[np.float32]
"""Loss after each epoch."""
MAX_POINTS = 1_000
"""Maximum number of points with details on the report page; more details would make the page too
large for browsers."""
_MAX_LOSS_CURVES = 10_000
"""Maximum number of loss curves on a page; with more probes, all loss curves are omitted."""
_CURVE_VALUES, _LOSS_VALUES = 40, 24
"""Number of values of each fit curve, and maximum number of values of each loss curve."""


def details_of(points: Sequence[tuple[RunFolder, PointStatus]]) -> list[Details | None]:
    """Return the details of each of the first 1,000 points; None for a point without a probe."""
    shown = points[:MAX_POINTS]
    include_losses = sum(status.probes for _, status in shown) <= _MAX_LOSS_CURVES
    return [
        point_details(status, _loss_curves(run, status) if include_losses else ())
        if status.record
        else None
        for run, status in shown
    ]


def _loss_curves(run: RunFolder, status: PointStatus) -> Sequence[Curve]:
    try:
        return read_loss_curves(run.point_file(status.point.id))
    except PointError:  # the file was damaged or removed after its status was read
        return ()


def json_for_script(value: Any) -> str:
    """Format a value as JSON, escaped for use inside an HTML script element."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def point_details(status: PointStatus, loss_curves: Sequence[Curve] = ()) -> Details:
    """Return the data of a point for the report page, with all its training runs.

    The training runs are in the order of their first probes.

    Args:
        status: a point that has a record.
        loss_curves: loss curve of each probe; empty to omit the loss curves.
    """
    record, estimate, bracket = status.record, status.estimate, status.bracket
    assert record is not None
    best = 0 if estimate is None else estimate.arm
    exact = estimate if estimate is not None and estimate.censored == "none" else None
    counted = [
        (number, run.n, run.verdict == "fit")
        for number, run in enumerate(record.training_runs)
        if run.arm == best and not run.rejected
    ]
    keys = ((probe.n, probe.repeat, probe.arm) for probe in record.probes)
    losses = dict(zip(keys, loss_curves, strict=False))  # the file may have new probes
    return {
        "label": point_title(status.point),
        "emc": emc_text(estimate),
        "interval": None if exact is None or exact.emc_hi is None
        else {"lo": exact.emc_lo, "emc": exact.emc, "hi": exact.emc_hi},
        "by_curve": exact is not None and exact.estimand != "last_fit",
        "reason": censoring_reason(status),
        "ratio": ratio_text(estimate, record.header.params),
        "params": record.header.params,
        "bracket": bracket_text(bracket),
        "ends": (
            [number for number, n, fit in counted if fit and n == bracket.largest_fit],
            [number for number, n, fit in counted if not fit and n == bracket.smallest_fail],
        ),
        "ended": ending_text(status),
        "curve": _fit_curve(status.history, record.header.n_limit),
        "probes": [
            _probe_values(run, best, losses.get((run.n, run.repeat, run.arm), ()))
            for run in record.training_runs
        ],
    }  # fmt: skip


def _probe_values(probe: ProbeSummary, best_arm: int, losses: Curve) -> list[Any]:
    """Return the values of a probe, in the order that ``report.js`` expects."""
    return [
        probe.n, probe.repeat, probe.verdict, probe.n_errors, round(probe.train_accuracy, 5),
        probe.epochs, probe.cost, round(probe.seconds, 3), int(probe.rejected),
        int(probe.arm != best_arm), ", ".join(f"{k} {v:g}" for k, v in probe.tuned.items()),
        *_subsample_losses(losses),
    ]  # fmt: skip


def _subsample_losses(curve: Curve) -> tuple[list[int], list[float | None]]:
    """Return two lists: evenly spaced epochs, from the first to the last, and their losses."""
    last = len(curve) - 1
    if last < 0:
        return [], []
    epochs = sorted({round(i * last / (_LOSS_VALUES - 1)) for i in range(_LOSS_VALUES)})
    losses = [float(curve[epoch]) for epoch in epochs]
    return [epoch + 1 for epoch in epochs], [
        float(f"{loss:.3g}") if math.isfinite(loss) else None for loss in losses
    ]


def _fit_curve(history: History, n_limit: int) -> list[list[float]]:
    """Return pairs (n, posterior mean of P(fit)) for n in the probed range."""
    if not history:
        return []
    probed = [result.n for result in history]
    ns = np.geomspace(min(probed) / 1.2, max(probed) * 1.2, _CURVE_VALUES)
    chances = posterior(history, n_limit).mean_fit_probability(ns)
    return [[round(float(n), 2), round(float(p), 4)] for n, p in zip(ns, chances, strict=True)]
