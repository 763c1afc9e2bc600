"""View of a sweep in the MLflow UI: settings of the runs table; lookup of its experiment."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from flexhpc.config import Point
from flexhpc.store import RunFolder

VIEW = "flexhpc"
"""Key of the shared view; the URL of the page contains it."""
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
KIND, ENDED_BY = "flexhpc.kind", "ended_by"
_METRICS = ("emc", "emc_lo", "emc_hi", "emc_per_param", "doubling")


def runs_table_view(points: Sequence[Point]) -> str:
    """Return the settings of MLflow's runs table as JSON, in the format of its "share view" button.

    The table has one row per point. The columns are the swept keys, the number of parameters, the
    EMC and its interval, the EMC per parameter, the factor by which doubling the budget raises
    the EMC, and the reason why the search ended.
    """
    swept = dict.fromkeys(key for point in points for key, _ in flatten("", point.swept))
    columns = [
        *(f"params.`{key}`" for key in (*swept, "params")),
        *(f"metrics.`{key}`" for key in _METRICS),
        f"tags.`{ENDED_BY}`",
    ]
    state = {
        "searchFilter": f"tags.`{KIND}` = 'point'",
        "orderByKey": "attributes.start_time",
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "compareRunsMode": "TABLE",
    }
    return json.dumps(state)


def flatten(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Flatten nested mappings; yield (dotted path, value) pairs.

    Args:
        name: dotted path of ``value``; empty at the top level.
        value: dict to flatten; any other value is yielded unchanged.
    """
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flatten(f"{name}.{key}" if name else key, inner)
    else:
        yield name, value


def experiment_of(database: Path, name: str) -> tuple[str, str] | None:
    """Return (id, artifact location) of the MLflow experiment ``name``; None if it does not exist.

    The database is read with sqlite3, because importing mlflow takes seconds.

    Raises:
        sqlite3.Error: the database cannot be read.
    """
    address = f"{database.resolve().as_uri()}?mode=ro"
    with closing(sqlite3.connect(address, uri=True)) as connection:
        row = connection.execute(
            "SELECT experiment_id, artifact_location FROM experiments WHERE name = ?", (name,)
        ).fetchone()
    return None if row is None else (str(row[0]), str(row[1]))


def was_moved(run: RunFolder, name: str) -> bool | None:
    """Return whether the run folder was moved or copied after its database was created.

    Such a database must be recreated, because MLflow stores absolute artifact locations and has no
    function to change them.

    Args:
        name: name of the sweep, which is also the name of its MLflow experiment.

    Returns:
        True or False; None if the database does not exist or does not contain the experiment.

    Raises:
        sqlite3.Error: the database cannot be read.
    """
    experiment = experiment_of(run.database, name) if run.database.is_file() else None
    return None if experiment is None else experiment[1] != run.artifacts.as_uri()
