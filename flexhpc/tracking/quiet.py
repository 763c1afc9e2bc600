"""MLflow's client, imported with its chatter off and its patience short."""

from __future__ import annotations

import logging
import os
import sqlite3
from typing import Any


def mlflow_client(uri: str, *, can_be_made_again: bool = False) -> Any:
    """Return an MlflowClient for ``uri``; importing mlflow takes seconds, so only here.

    Args:
        can_be_made_again: whether all that SQLite holds there is a view of something else. Then no
            write waits for the disk (there are ten for each run), which leaves a database that is
            whole after the death of this process, and perhaps not after that of the machine.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    from mlflow.tracking import MlflowClient

    if can_be_made_again:
        _hurry_sqlite()
    return MlflowClient(tracking_uri=uri)


def _hurry_sqlite() -> None:
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    @event.listens_for(Engine, "connect")
    def hurry(connection: Any, _: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous=OFF")
