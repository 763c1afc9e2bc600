"""MLflow's own UI on a run's database."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
from pathlib import Path

from filelock import FileLock, Timeout

from flexhpc.errors import InputError
from flexhpc.store import RunFolder
from flexhpc.tracking.state import local_uri
from flexhpc.tracking.view import address_of, relocate

UI_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # MLflow would start half a dozen job processes of 230 MB each, which only its GenAI views use.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}


def ui_command(run: RunFolder, port: int) -> list[str]:
    """Return the command that serves the UI on loopback.

    Raises:
        InputError: the run has no database yet.
    """
    _must_be_there(run)
    return [
        sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", local_uri(run),
        "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
    ]  # fmt: skip


def page_of(run: RunFolder, name: str) -> str:
    """Return which page to open: the table of the sweep's points.

    Raises:
        InputError: the run has no database yet, or it is damaged.
    """
    _must_be_there(run)
    try:
        with contextlib.suppress(Timeout), FileLock(run.path / ".tracking.lock", timeout=1):
            relocate(run.database, run.artifacts.as_uri())  # not while somebody writes it
        return address_of(run.database, name)
    except (sqlite3.Error, OSError) as error:
        raise InputError(
            f"{run.database}: cannot be read ({error}); move it away, and "
            f"`flexhpc sync {run.path}` makes it again"
        ) from None


def _must_be_there(run: RunFolder) -> None:
    if not run.database.is_file():
        raise InputError(f"{run.path}: has no mlflow.db yet; `flexhpc sync {run.path}` makes it")


def serve(run: RunFolder, port: int) -> None:
    """Replace this process by the UI's server."""
    command = ui_command(run, port)
    os.execve(command[0], command, {**UI_ENVIRONMENT, **os.environ})


def newest_run(runs: Path) -> Path:
    """Return the run folder that was touched last.

    Raises:
        InputError: there is none.
    """
    run_files = sorted(runs.glob("*/run.json"), key=lambda path: path.stat().st_mtime)
    if not run_files:
        raise InputError(f"{runs}: holds no run yet; `flexhpc sweep SPEC` makes one")
    return run_files[-1].parent
