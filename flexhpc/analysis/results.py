"""Table of results as CSV, JSON or Parquet; EMC at other training errors and other budgets."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from flexhpc.analysis.conflicts import conflict_chance_at_emc
from flexhpc.analysis.information import StoredBits, max_label_information, max_token_information
from flexhpc.analysis.reasons import best_value_at_edge, censoring_reason, exceeds_tolerance
from flexhpc.analysis.text import BOUNDS
from flexhpc.config.sections.data import Tokens
from flexhpc.config.sections.search import format_eps
from flexhpc.search import EmcInterval, estimate_at_training_error
from flexhpc.search.budget_curve import MAX_FACTOR, budget_curve
from flexhpc.search.fit_curve import estimand_level
from flexhpc.store import PointRecord
from flexhpc.store.status import PointStatus

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
Row = dict[str, Any]
COLUMNS = {
    "params": "number of trained parameters",
    "emc": "EMC (samples); a lower bound if censored is right, 0 if censored is left",
    "emc_lo": "lower end of the interval of the EMC (samples)",
    "emc_hi": "upper end of the interval of the EMC (samples)",
    "level": "probability that the interval contains the EMC",
    "estimand": "definition of the EMC; n50: the n at which half of the training runs fit",
    "censored": "right: the EMC may be larger than emc; left: the EMC is below smallest_fail",
    "largest_fit": "largest n that fitted (samples)",
    "smallest_fail": "smallest n that failed (samples)",
    "probes": "number of training runs; before the first estimate, number of probes",
    "cost": "cost of these training runs (sample passes: samples times epochs)",
    "seconds": "duration of these training runs (seconds)",
    "emc_per_param": "emc / params",
    "unconverged": "training runs with the verdict unconverged: still improving at the end of "
    "their budget",
    "status": "state of the point: done, running, stopped, queued, waiting or failed",
    "bits": "number of bits of the trained parameters",
    "emc_per_bit": "emc / bits",
    "bits_per_param": "information about random labels or tokens that the network stores, in bits "
    "per parameter, at the n at which it stores most",
    "bits_per_param_lo": "lower end of the interval of bits_per_param",
    "bits_per_param_hi": "upper end of the interval of bits_per_param",
    "rejected": "failed training runs that do not count, because a convergence gate rejected them",
    "touched_plateau": "failed training runs not converged according to the gate plateau",
    "touched_gradient": "failed training runs not converged according to the gate gradient",
    "touched_curvature": "failed training runs not converged according to the gate curvature",
    "touched_stability": "failed training runs not converged according to the gate stability",
    "unstable": "training runs with the verdict unstable",
    "width_of_curve": "width of the fit curve (logarithm of n); larger: less steep",
    "ended_by": "why the search ended",
    "wider_than_asked": "whether the interval is wider than the tolerance",
    "best_chance": "probability that the best values of the tuned keys are really the best",
    "at_edge": "whether the best value of a tuned key is at an end of its range",
    "doubling": "factor by which the EMC would increase if the budget were doubled",
    "doubling_lo": "lower end of the interval of doubling",
    "doubling_hi": "upper end of the interval of doubling",
    "saturated": "yes, no or unknown: whether doubling the budget raises the EMC by a factor of at "
    "most 1.1; after two doublings, the last two doublings",
    "params_total": "number of all parameters, including frozen parameters",
    "emc_per_param_bound": ">=: emc_per_param and emc_per_bit are lower bounds; <: they are 0, "
    "and the upper bound is smallest_fail / params or smallest_fail / bits",
    "censored_because": "why the EMC is only a bound",
    "conflict_chance": "probability that n = EMC random samples contain equal inputs with "
    "different labels",
}
"""Columns after ``point_id`` and the swept keys -> description. They are followed by columns whose
names begin with a key of :data:`PREFIXES`, and by the columns in :data:`EVALUATION`."""
PREFIXES = {
    "best.": "best value of this tuned key",
    "emc_eps_": "EMC at this training error (samples); _lo, _hi: ends of its interval; _censored: "
    "like the column censored",
    "emc_budget_": "EMC at this budget (samples); _lo, _hi and _censored: as for emc_eps_; "
    "_predicted: whether the budget is larger than the budget of the point",
}
"""Prefix of the names of columns -> description of these columns."""
EVALUATION = {
    "train_accuracy": "accuracy on the training set of the evaluated training run",
    "test_accuracy": "accuracy of the evaluated training run on the test set",
    "gap": "train_accuracy - test_accuracy",
    "test_loss": "mean loss on the test set",
    "calibration_error": "expected calibration error on the test set",
    "interpolated": "whether the evaluated training run fitted all its samples",
}
"""Columns of points with a requested evaluation -> description."""
GATES = ("plateau", "gradient", "curvature", "stability")


def describe_column(name: str) -> str:
    """Return the description of a column; empty for ``point_id`` and for swept keys."""
    by_prefix = (text for prefix, text in PREFIXES.items() if name.startswith(prefix))
    return {**COLUMNS, **EVALUATION}.get(name) or next(by_prefix, "")


def results_row(status: PointStatus) -> Row:
    """Return the row of a point in the table of results; unknown values are None."""
    record, estimate = status.record, status.estimate
    row: Row = {"point_id": status.point.id, **status.point.swept, **dict.fromkeys(COLUMNS)}
    row |= {"status": status.state, "probes": status.probes, "cost": status.cost}
    if record is None:
        return row
    params, bits = record.header.params, record.header.bits
    row |= {
        "params": params or None, "bits": bits or None,
        "params_total": record.header.params_total or None,
        "seconds": round(sum(run.seconds for run in record.training_runs), 3),
        "unstable": sum(run.verdict == "unstable" for run in record.finished_runs),
        **{f"touched_{gate}": _count_detections(record, gate) for gate in GATES},
    }  # fmt: skip
    if params and (stored := _stored_bits(status, record)) is not None:
        for end, value in (("", stored.mean), ("_lo", stored.low), ("_hi", stored.high)):
            row[f"bits_per_param{end}"] = None if value is None else value / params
    if estimate is not None:
        row |= {key: getattr(estimate, key) for key in COLUMNS if hasattr(estimate, key)}
        row |= {
            "width_of_curve": estimate.width[1] if estimate.width else None,
            "wider_than_asked": exceeds_tolerance(status),
            "emc_per_param": estimate.emc / params if params else None,
            "emc_per_param_bound": BOUNDS[estimate.censored],
            "emc_per_bit": estimate.emc / bits if bits else None,
            "conflict_chance": conflict_chance_at_emc(record.header, estimate),
            "censored_because": censoring_reason(status),
        }  # fmt: skip
        if estimate.best_chance is not None:
            row["at_edge"] = best_value_at_edge(status)
            best = status.point.arms[estimate.arm].values
            row |= {f"best.{key}": value for key, value in best.items()}
        if estimate.doubling is not None:
            low, row["doubling"], high = estimate.doubling
            row |= {"doubling_lo": low, "doubling_hi": high}
        for eps, at_eps in estimate.by_eps.items():
            row |= _interval_columns(f"emc_eps_{eps}", at_eps)
        for budget, at_budget in estimate.by_budget.items():
            row |= _interval_columns(f"emc_budget_{budget}", at_budget)
            row[f"emc_budget_{budget}_predicted"] = float(budget) > budget_value(status)
    if record.evaluation is not None:
        row |= {key: record.evaluation[key] for key in EVALUATION}
    return row


def _interval_columns(name: str, interval: EmcInterval) -> Row:
    return {
        name: interval.emc, f"{name}_lo": interval.emc_lo, f"{name}_hi": interval.emc_hi,
        f"{name}_censored": interval.censored,
    }  # fmt: skip


def _stored_bits(status: PointStatus, record: PointRecord) -> StoredBits | None:
    """Return the bits that a network stores about random labels or random tokens.

    This is the maximum over n. Return None for labels that are not random, because a network can
    predict them from the inputs, and before the first probe has finished.
    """
    data = status.point.data
    if isinstance(data, Tokens):
        scored = data.sequence_length - data.first_in_loss
        return max_token_information(record.training_runs, scored, data.vocabulary)
    if data.labels != "random" or record.header.classes < 2:
        return None
    return max_label_information(status.history, record.header.classes)


def _count_detections(record: PointRecord, gate: str) -> int | None:
    """Count the failed training runs that had not converged according to the gate ``gate``.

    Return None if this gate did not check any training run.
    """
    values = [run.metrics.get(f"touched_{gate}") for run in record.finished_runs]
    known = [value for value in values if value is not None]
    return int(sum(known)) if known else None


def numeric_columns(row: Row) -> dict[str, float]:
    """Return a dict of all finite numbers in a row, except the values of the swept keys.

    Booleans become 1 or 0.
    """
    keys = list(row)
    return {
        key: float(row[key])
        for key in keys[keys.index(next(iter(COLUMNS))) :]
        if isinstance(row[key], int | float) and math.isfinite(row[key])
    }


def as_csv(rows: Sequence[Row]) -> str:
    """Format rows as CSV; None becomes an empty cell, booleans become ``true`` and ``false``."""
    out = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: csv_cell(value) for key, value in row.items()} for row in rows)
    return out.getvalue()


def csv_cell(value: Any) -> Any:
    """Format a CSV cell; text that a spreadsheet would run as a formula gets the prefix ``'``."""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return json.dumps(value) if isinstance(value, dict | list | bool) else value


def as_json(rows: Sequence[Row]) -> str:
    """Format rows as a JSON list; numbers that are not finite become null."""

    def finite_or_none(value: Any) -> Any:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    finite_rows = [{key: finite_or_none(value) for key, value in row.items()} for row in rows]
    return json.dumps(finite_rows, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def as_parquet(rows: Sequence[Row]) -> bytes:
    """Format rows as a Parquet file; columns with mixed types or nested values become JSON text."""
    import pandas

    columns: dict[str, list[Any]] = {}
    for name in dict.fromkeys(key for row in rows for key in row):
        values = [row.get(name) for row in rows]
        kinds = {type(value) for value in values if value is not None}
        if (len(kinds) > 1 and not kinds <= {int, float}) or kinds & {dict, list}:
            values = [None if v is None else json.dumps(v) for v in values]
        columns[name] = values
    return bytes(pandas.DataFrame(columns).to_parquet(index=False))


def with_eps_estimates(statuses: Sequence[PointStatus], eps: Sequence[float]) -> list[PointStatus]:
    """Add the EMC at each training error in ``eps`` to the estimates of the points.

    If an estimate already contains the EMC at a training error, this EMC is not changed.

    Args:
        statuses: status of each point; any search policy is allowed.
        eps: training errors, between 0 and 1.
    """
    extended = []
    for status in statuses:
        if status.estimate is not None and status.record is not None:
            history, n_limit = status.history, status.record.header.n_limit
            at_eps = {
                format_eps(error): estimate_at_training_error(error, n_limit, history)
                for error in eps
            }
            known = {name: value for name, value in at_eps.items() if value is not None}
            merged = {**known, **status.estimate.by_eps}
            by_eps = {name: merged[name] for name in sorted(merged, key=float)}
            status = replace(status, estimate=replace(status.estimate, by_eps=by_eps))
        extended.append(status)
    return extended


def budget_value(status: PointStatus) -> int:
    """Return the budget of a point in its unit (such as steps); 0 if the point has no budget.

    With ``until: saturation``, this is the largest budget so far.
    """
    _, budget = status.point.training.budget or ("", 0)
    return budget << (status.estimate.stage if status.estimate else 0)


def emc_at_budget(status: PointStatus, budget: float) -> EmcInterval | None:
    """Estimate the EMC at another budget, from the times at which training runs fitted all samples.

    If ``budget`` is larger than the budget of the point, the result is a prediction.

    Args:
        status: status of the point; any search policy is allowed.
        budget: the other budget, in the unit of the point's budget.

    Returns:
        The EMC and its interval. None if the point has no estimate, if ``budget`` is more than
        twice the budget of the point, or if the EMC at this budget is unknown.
    """
    estimate, record, point_budget = status.estimate, status.record, budget_value(status)
    if estimate is None or record is None or not 0 < budget <= MAX_FACTOR * point_budget:
        return None
    if budget == point_budget:
        return EmcInterval(
            emc=estimate.emc, emc_lo=estimate.emc_lo, emc_hi=estimate.emc_hi,
            censored=estimate.censored,
        )  # fmt: skip
    curve = budget_curve(status.history, record.header.n_limit)
    if curve is None or budget < curve.smallest_factor * point_budget:
        return None
    return curve.emc(estimand_level(estimate.estimand), budget / point_budget)


def with_budget_estimates(
    statuses: Sequence[PointStatus], budgets: Sequence[float]
) -> list[PointStatus]:
    """Add the EMC at each budget (see :func:`emc_at_budget`) to the estimate of each point."""
    extended = []
    for status in statuses:
        if status.estimate is not None:
            emcs = {f"{budget:g}": emc_at_budget(status, budget) for budget in sorted(budgets)}
            by_budget = {name: emc for name, emc in emcs.items() if emc is not None}
            status = replace(status, estimate=replace(status.estimate, by_budget=by_budget))
        extended.append(status)
    return extended
