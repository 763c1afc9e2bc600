"""MLflow's client, imported with its chatter off and its patience short."""

from __future__ import annotations

import logging
import os
import sqlite3
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flexhpc.atomic import write_atomic
from flexhpc.imports import quick_imports


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
    with quick_imports():
        from mlflow.tracking import MlflowClient

    if can_be_made_again:
        _hurry_sqlite()
    return MlflowClient(tracking_uri=uri)


def make_database(path: Path) -> None:
    """Make MLflow's database, empty, where there is none; nobody else may be about to.

    As a whole, and elsewhere: killed while it makes its tables, MLflow leaves a database that it
    can neither go on with nor use, and it makes the folder of a run that was moved meanwhile.

    Raises:
        OSError: the folder cannot be written, or is gone.
    """
    if path.exists():
        return
    for left in path.parent.glob(f".{path.name}.*.part"):
        left.unlink(missing_ok=True)  # of one that was killed
    with TemporaryDirectory() as folder:
        made = Path(folder, path.name)
        mlflow_client(f"sqlite:///{made}", can_be_made_again=True)
        write_atomic(path, made.read_bytes(), durable=False, makes_folder=False)


def _hurry_sqlite() -> None:
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    @event.listens_for(Engine, "connect")
    def hurry(connection: Any, _: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous=OFF")
