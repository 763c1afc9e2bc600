"""How MLflow's pages show a sweep: the columns and rows of its table, the descriptions."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from flexhpc.config import Point

VIEW = "flexhpc"
"""The key under which the view is shared; MLflow's page is given it in its address."""
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
KIND, ENDED_BY = "flexhpc.kind", "ended_by"
_METRICS = ("emc", "emc_lo", "emc_hi", "emc_per_param")


def view_of(points: Sequence[Point]) -> str:
    """Return the state of MLflow's runs table, as its own button to share a view writes it.

    One row per point; its swept keys, EMC, interval, EMC per parameter, and why the search ended.
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
    """Yield the plain values of a key, by dotted path; a mapping has several."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(f"{name}.{key}" if name else key, inner)
    else:
        yield name, value


def address_of(database: Path, name: str) -> str:
    """Return the page with an experiment's table: what follows the name of MLflow's server.

    The database is asked without MLflow, which takes seconds to import.
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
    """Let a database that was moved or copied with its run find its artifacts where they are now.

    MLflow has no call for it: places of artifacts are written once, absolute.

    Args:
        database: of a run; nothing happens where there is none.
        artifacts: URI of the folder of its artifacts.
    """
    if not database.is_file():
        return
    with closing(sqlite3.connect(database)) as connection, connection:
        there = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'")
        if there.fetchone() is None:  # whoever made it was killed before its tables
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
