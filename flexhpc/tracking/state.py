"""Where MLflow's database lies and what it was last brought up to; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from flexhpc.atomic import read_json
from flexhpc.store import RunFolder
from flexhpc.store.status import PointStatus

NO_PASSWORD = (
    "holds a password, which would show in process lists and logs; leave it out and set "
    "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (a database has a file for it)"
)


_SECRET = {"password", "passwd", "pwd", "token", "access_token", "api_key", "sslpassword"}
"""Arguments of an address that name a secret."""


def has_password(uri: object) -> bool:
    """Return whether an address carries one, before its host or among its arguments."""
    if not isinstance(uri, str):
        return False
    try:
        parts = urlsplit(uri)
        asked = parse_qsl(parts.query)
        given = {key.lower() for key, _ in asked}
        inside = any("pwd=" in value.lower() for _, value in asked)  # of ODBC
        return parts.password is not None or inside or bool(given & _SECRET)
    except ValueError:
        return False


def local_uri(run: RunFolder) -> str:
    """Return the address of the run folder's own database."""
    return f"sqlite:///{run.database}"


def tracked_path(run: RunFolder) -> Path:
    """Return the file that says what MLflow was last brought up to."""
    return run.path / ".tracked.json"


def tracked(uri: str, statuses: Sequence[PointStatus]) -> dict[str, Any]:
    """Return what MLflow at ``uri`` holds once these points are synced."""
    return {
        "uri": uri,
        "probes": sum(status.probes for status in statuses),
        "done": sum(status.state == "done" for status in statuses),
    }


def up_to_date(run: RunFolder, uri: str | None, statuses: Sequence[PointStatus]) -> bool:
    """Return whether the last sync left nothing to do, without importing mlflow."""
    return read_json(tracked_path(run)) == tracked(uri or local_uri(run), statuses)
