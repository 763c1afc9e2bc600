"""View of a sweep in the MLflow UI: columns and rows of the runs table, and its address."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from flexhpc.config import Point

VIEW = "flexhpc"
"""Key of the shared view, which is passed to MLflow's page in the URL."""
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
KIND, ENDED_BY = "flexhpc.kind", "ended_by"
_METRICS = ("emc", "emc_lo", "emc_hi", "emc_per_param")


def view_of(points: Sequence[Point]) -> str:
    """Return the state of MLflow's runs table as JSON, in the format of its "share view" button.

    The table has one row per point, with its swept keys, number of parameters, EMC, interval, EMC
    per parameter and the reason why the search ended.
    """
    swept = dict.fromkeys(key for point in points for key, _ in flat("", point.swept))
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


def flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Flatten nested mappings; yield (dotted path, value) pairs.

    Args:
        name: dotted path of ``value``; empty at the top level.
        value: mapping or plain value.
    """
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(f"{name}.{key}" if name else key, inner)
    else:
        yield name, value


def address_of(database: Path, name: str) -> str:
    """Return the path of the UI page with an experiment's table, relative to the server's root.

    The database is read with sqlite3, because importing mlflow takes seconds.

    Args:
        database: SQLite database of a run.
        name: name of the experiment.

    Raises:
        sqlite3.Error: the database cannot be read.
    """
    address = f"{database.resolve().as_uri()}?mode=ro"
    with closing(sqlite3.connect(address, uri=True)) as connection:
        found = connection.execute(
            "SELECT experiment_id FROM experiments WHERE name = ?", (name,)
        ).fetchone()
    if found is None:
        return "/#/experiments?workflowType=machine_learning"
    asked = f"workflowType=machine_learning&viewStateShareKey={VIEW}"
    return f"/#/experiments/{found[0]}/runs?{asked}"


def relocate(database: Path, artifacts: str) -> None:
    """Update the artifact locations in a database that was moved or copied with its run.

    MLflow stores absolute artifact locations and has no function to change them.

    Args:
        database: SQLite database of a run; nothing is done if it does not exist.
        artifacts: URI of the current artifact folder.
    """
    if not database.is_file():
        return
    with closing(sqlite3.connect(database)) as connection, connection:
        there = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'")
        if there.fetchone() is None:  # its creator was killed before it made the tables
            return
        old = connection.execute(
            "SELECT DISTINCT artifact_location FROM experiments WHERE artifact_location LIKE ? "
            "AND artifact_location != ?",
            ("%/mlartifacts", artifacts),
        ).fetchall()
        for (location,) in old:
            connection.execute(
                "UPDATE experiments SET artifact_location = ? WHERE artifact_location = ?",
                (artifacts, location),
            )
            connection.execute(
                "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
                "WHERE substr(artifact_uri, 1, ?) = ?",
                (artifacts, len(location) + 1, len(location) + 1, f"{location}/"),
            )
