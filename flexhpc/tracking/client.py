"""MLflow client with short timeouts, and without telemetry and log messages."""

from __future__ import annotations

import logging
import os
import sqlite3
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

from flexhpc.atomic import write_atomic
from flexhpc.imports import imports_without_gc


def mlflow_client(uri: str, *, rebuildable: bool = False) -> Any:
    """Import mlflow, which takes seconds, and create an MlflowClient.

    Args:
        rebuildable: whether the SQLite database at ``uri`` can be recreated from other files. Its
            writes (ten per MLflow run) are then not flushed to disk with fsync. The database stays
            consistent if this process is killed, but may be corrupt after a power failure.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with imports_without_gc():
        from mlflow.tracking import MlflowClient

    if rebuildable:
        _disable_fsync()
    return MlflowClient(tracking_uri=uri)


def existing_database_uri(path: Path) -> str:
    """Return a tracking URI with which MLflow opens a SQLite database but never creates it.

    For a URI that starts with ``sqlite:///``, MLflow creates the folder and the database if they
    are missing, and so would recreate the folder of a run that was moved.
    """
    return f"sqlite+pysqlite:///file:{quote(str(path.resolve()))}?mode=rw&uri=true"


def make_database(path: Path) -> None:
    """Create an empty MLflow database if it does not exist; the caller must hold the tracking lock.

    The database is created in a temporary folder and then copied to ``path`` atomically, because a
    process that is killed while MLflow creates the tables leaves an unusable database.

    Raises:
        OSError: the folder cannot be written, or does not exist.
    """
    if path.exists():
        return
    for part in path.parent.glob(f".{path.name}.*.part"):
        part.unlink(missing_ok=True)  # left by a killed process
    with TemporaryDirectory() as folder:
        created = Path(folder, path.name)
        mlflow_client(f"sqlite:///{created}", rebuildable=True)
        write_atomic(path, created.read_bytes(), durable=False, create_folder=False)


def _disable_fsync() -> None:
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    @event.listens_for(Engine, "connect")
    def disable_fsync(connection: Any, _: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous=OFF")
