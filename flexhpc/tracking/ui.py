"""Start the MLflow UI for the database of a run folder."""

from __future__ import annotations

import os
import shlex
import socket
import sqlite3
import sys
import tempfile
from pathlib import Path

from flexhpc.errors import InputError
from flexhpc.store import RunFolder
from flexhpc.tracking.state import local_uri
from flexhpc.tracking.view import VIEW, experiment_of, was_moved

UI_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Otherwise MLflow starts about six job processes of 230 MB each; only its GenAI views use them.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}


def ui_command(run: RunFolder, port: int, socket_path: Path | None = None) -> list[str]:
    """Return the command that serves the MLflow UI of a run folder.

    Args:
        socket_path: path of a Unix socket on which the UI is served instead of on ``port``.
    """
    socket_options = (
        ["--uvicorn-opts", f"--uds {shlex.quote(str(socket_path))}"] if socket_path else []
    )
    return [
        sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", local_uri(run),
        "--host", "127.0.0.1", "--port", str(port), "--workers", "1", *socket_options,
    ]  # fmt: skip


def make_private_socket_path() -> Path:
    """Create a folder that only this user can access; return a path in it for a Unix socket.

    The folder restricts access, because uvicorn makes the socket itself accessible to all users.
    """
    return Path(tempfile.mkdtemp(prefix="flexhpc-ui-"), "ui.sock")


def check_port(port: int) -> None:
    """Raise InputError if another process listens on the port.

    MLflow's server would exit with status 0, after the address of the other server was printed.
    """
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(("127.0.0.1", port))
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            raise InputError(f"--port {port}: {reason}; use another port") from None


def ui_page(run: RunFolder, name: str) -> str:
    """Return the URL path of the MLflow page that shows the points of a sweep in a table.

    The database is first created if it does not exist, or recreated if the run folder was moved.

    Args:
        name: name of the sweep.

    Raises:
        InputError: the database is damaged or cannot be written.
    """
    try:
        if was_moved(run, name) is not False:
            from flexhpc.tracking.sync import Syncer  # imports mlflow, which takes seconds

            Syncer(run, local_uri(run)).sync()
        experiment = experiment_of(run.database, name)
    except (sqlite3.Error, OSError) as error:
        raise InputError(
            f"{run.database}: cannot be read or written ({error}); remove it and run "
            f"`flexhpc sync {shlex.quote(str(run.path))}`, which recreates it"
        ) from None
    assert experiment is not None, "created by sync()"
    query = f"workflowType=machine_learning&viewStateShareKey={VIEW}"
    return f"/#/experiments/{experiment[0]}/runs?{query}"


def exec_ui_server(run: RunFolder, port: int, socket_path: Path | None = None) -> None:
    """Replace this process with the UI server; for the arguments see :func:`ui_command`."""
    command = ui_command(run, port, socket_path)
    os.chdir(run.path)  # uvicorn imports modules from the working directory
    os.execve(command[0], command, {**UI_ENVIRONMENT, **os.environ})


def newest_run(runs: Path) -> Path:
    """Return the run folder whose run.json was modified last.

    Raises:
        InputError: ``runs`` contains no run.
    """
    run_files = sorted(runs.glob("*/run.json"), key=lambda path: path.stat().st_mtime)
    if not run_files:
        raise InputError(f"{runs}: contains no run; `flexhpc sweep SPEC` creates one")
    return run_files[-1].parent
