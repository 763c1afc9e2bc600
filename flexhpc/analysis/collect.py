"""Results table with one row per point, exported as CSV, JSON or Parquet."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from typing import Any

from flexhpc.analysis.censoring import why_bound
from flexhpc.analysis.conflicts import conflict_chance
from flexhpc.analysis.endings import wider
from flexhpc.analysis.information import Held, most_information, most_of_tokens
from flexhpc.analysis.text import BOUNDS
from flexhpc.analysis.tuning import at_edge
from flexhpc.config.sections.data import RandomTokens
from flexhpc.store import PointRecord
from flexhpc.store.status import PointStatus

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
Row = dict[str, Any]
COLUMNS = (
    "params", "emc", "emc_lo", "emc_hi", "level", "estimand", "censored", "largest_fit",
    "smallest_fail", "probes", "cost", "seconds", "emc_per_param", "unconverged", "status",
    "bits", "emc_per_bit", "bits_per_param", "bits_per_param_lo", "bits_per_param_hi",
    "rejected", "touched_plateau", "touched_gradient",
    "touched_curvature", "touched_stability", "unstable", "width_of_curve", "ended_by",
     "wider_than_asked", "best_chance", "at_edge",
    "emc_per_param_bound", "censored_because", "conflict_chance",
)  # fmt: skip
"""Columns after ``point_id`` and the swept keys. They are followed by the best value of each tuned
key (``best.training.lr``), the EMC at each requested training error (``emc_eps_0.1``, with ``_lo``,
``_hi`` and ``_censored``) and the columns in :data:`EVALUATION`."""
EVALUATION = (
    "train_accuracy", "test_accuracy", "gap", "test_loss", "calibration_error", "interpolated",
)  # fmt: skip
GATES = ("plateau", "gradient", "curvature", "stability")


def row_of(status: PointStatus) -> Row:
    """Return the row of one point; values that are not known yet are None."""
    record, estimate = status.record, status.estimate
    row: Row = {"point_id": status.point.id, **status.point.swept, **dict.fromkeys(COLUMNS)}
    row |= {"status": status.state, "probes": status.probes, "cost": status.cost}
    if record is not None:
        row["params"] = record.header.params or None
        row["seconds"] = round(sum(probe.seconds for probe in record.probes), 3)
        row["bits"] = record.header.bits or None
        if (held := _bits_per_parameter(status, record)) is not None:
            row |= {
                "bits_per_param": held.most,
                "bits_per_param_lo": held.low,
                "bits_per_param_hi": held.high,
            }
        row["unstable"] = sum(probe.verdict == "unstable" for probe in record.probes)
        row |= {f"touched_{gate}": _touched(record, gate) for gate in GATES}
    if estimate is not None and record is not None:
        for key in COLUMNS:
            if hasattr(estimate, key):
                row[key] = getattr(estimate, key)
        row["width_of_curve"] = estimate.width[1]
        row["wider_than_asked"] = wider(status.point.search, estimate)
        if estimate.best_chance is not None:
            arm = status.point.arms[estimate.arm]
            row["at_edge"] = at_edge(status)
            row |= {f"best.{key}": value for key, value in arm.values.items()}
        if record.header.params:
            row["emc_per_param"] = estimate.emc / record.header.params
        row["conflict_chance"] = conflict_chance(record.header, estimate)
        row["censored_because"] = why_bound(status)
        row["emc_per_param_bound"] = BOUNDS[estimate.censored]
        if record.header.bits:
            row["emc_per_bit"] = estimate.emc / record.header.bits
        for eps, answer in estimate.by_eps.items():
            name = f"emc_eps_{eps}"
            row |= {name: answer.emc, f"{name}_lo": answer.emc_lo, f"{name}_hi": answer.emc_hi}
            row[f"{name}_censored"] = answer.censored
    if record is not None and record.evaluation is not None:
        row |= {key: record.evaluation[key] for key in EVALUATION}
    return row


def _bits_per_parameter(status: PointStatus, record: PointRecord) -> Held | None:
    """Return the most information (bits per parameter) about random labels or tokens.

    None for all other labels: they can be predicted from the inputs, so that fitting them does not
    measure storage. Also None for a trainer without a network, and before the first probe.
    """
    data = status.point.data
    if not record.header.params:
        return None
    if isinstance(data, RandomTokens):
        most = most_of_tokens(record.probes, data.length, data.vocabulary)
    elif data.labels != "random" or record.header.classes < 2:
        return None
    else:
        most = most_information(status.history, record.header.classes)
    return None if most is None else most.per(record.header.params)


def _touched(record: PointRecord, gate: str) -> int | None:
    """Count failed probes that a gate found not to be at a minimum; None if the gate is off."""
    readings = [probe.readings.get(f"touched_{gate}") for probe in record.probes]
    known = [reading for reading in readings if reading is not None]
    return int(sum(known)) if known else None


def measurements(row: Row) -> dict[str, float]:
    """Return the finite numbers among the measured columns (those after the swept keys).

    Booleans become 1 or 0.
    """
    keys = list(row)
    measured = keys[keys.index(COLUMNS[0]) :]
    return {
        k: float(row[k])
        for k in measured
        if isinstance(row[k], int | float) and not _endless(row[k])
    }


def as_csv(rows: Sequence[Row]) -> str:
    """Format rows as CSV; None becomes an empty cell, booleans become ``true`` and ``false``."""
    out = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: cell_of(value) for key, value in row.items()} for row in rows)
    return out.getvalue()


def cell_of(value: Any) -> Any:
    """Format a CSV cell; text that a spreadsheet would run as a formula gets a leading quote."""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return json.dumps(value) if isinstance(value, dict | list | bool) else value


def as_json(rows: Sequence[Row]) -> str:
    """Format rows as a JSON list; numbers that are not finite become null."""
    finite = [{k: None if _endless(v) else v for k, v in row.items()} for row in rows]
    return json.dumps(finite, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _endless(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def as_parquet(rows: Sequence[Row]) -> bytes:
    """Format rows as a Parquet file; mixed and nested swept values become JSON text."""
    import pandas

    columns: dict[str, list[Any]] = {}
    for name in dict.fromkeys(key for row in rows for key in row):
        values = [row.get(name) for row in rows]
        kinds = {type(value) for value in values if value is not None}
        if (len(kinds) > 1 and not kinds <= {int, float}) or kinds & {dict, list}:
            values = [None if v is None else json.dumps(v) for v in values]
        columns[name] = values
    return bytes(pandas.DataFrame(columns).to_parquet(index=False))
