"""Tracking URI of a run folder, and state of its last sync to MLflow; mlflow is not imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from flexhpc.atomic import read_json
from flexhpc.store import RunFolder
from flexhpc.store.status import PointStatus

NO_PASSWORD = (
    "contains a password, which would be visible in process lists and logs; remove it and set "
    "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (for a database, use a password file)"
)


_SECRET_PARAMETERS = {
    "password",
    "passwd",
    "pwd",
    "token",
    "access_token",
    "api_key",
    "sslpassword",
}
"""Names of URI query parameters that contain a secret."""


def has_password(uri: object) -> bool:
    """Return whether a URI contains a password before the host or a secret in a query parameter."""
    if not isinstance(uri, str):
        return False
    try:
        parts = urlsplit(uri)
        parameters = parse_qsl(parts.query)
        names = {key.lower() for key, _ in parameters}
        in_value = any("pwd=" in value.lower() for _, value in parameters)  # ODBC connection string
        return parts.password is not None or in_value or bool(names & _SECRET_PARAMETERS)
    except ValueError:
        return False


def local_uri(run: RunFolder) -> str:
    """Return the tracking URI of the MLflow database in the run folder."""
    return f"sqlite:///{run.database}"


def sync_state_path(run: RunFolder) -> Path:
    """Return the path of the file with the state of the last sync to MLflow."""
    return run.path / ".tracked.json"


def sync_state(uri: str, statuses: Sequence[PointStatus]) -> dict[str, Any]:
    """Return a dict with ``uri`` and the numbers of probes and of done points.

    The dict is stored after a sync; :func:`is_synced` compares it with the current state.
    """
    return {
        "uri": uri,
        "probes": sum(status.probes for status in statuses),
        "done": sum(status.state == "done" for status in statuses),
    }


def is_synced(run: RunFolder, uri: str | None, statuses: Sequence[PointStatus]) -> bool:
    """Return whether all results have already been synced to ``uri``; mlflow is not imported.

    Args:
        uri: tracking URI; None for the MLflow database in the run folder.
    """
    return read_json(sync_state_path(run)) == sync_state(uri or local_uri(run), statuses)
