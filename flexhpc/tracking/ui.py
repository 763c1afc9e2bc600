"""Start the MLflow UI on a run's database."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import sqlite3
import stat
import sys
from pathlib import Path

from filelock import Timeout

from flexhpc.atomic import locked
from flexhpc.errors import InputError
from flexhpc.store import RunFolder
from flexhpc.tracking.state import local_uri
from flexhpc.tracking.view import address_of, relocate

UI_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Otherwise MLflow starts about six job processes of 230 MB each; only its GenAI views use them.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}
_LONGEST_SOCKET = 107
"""Longest path of a Unix socket on Linux (bytes; ``sun_path``)."""


def ui_command(run: RunFolder, port: int, at: Path | None = None) -> list[str]:
    """Return the command that serves the UI.

    Args:
        run: run folder.
        port: port on the loopback interface.
        at: path of a Unix socket to serve on instead of the port.

    Raises:
        InputError: the run has no database yet.
    """
    _must_be_there(run)
    instead = ["--uvicorn-opts", f"--uds {shlex.quote(str(at))}"] if at else []
    return [
        sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", local_uri(run),
        "--host", "127.0.0.1", "--port", str(port), "--workers", "1", *instead,
    ]  # fmt: skip


def private_socket(path: Path) -> Path:
    """Return the absolute path of a Unix socket that only this user can reach.

    The folder is created if it does not exist. uvicorn makes the socket itself accessible to all
    users, so access is restricted by the folder, which no other user may enter or replace.

    Raises:
        InputError: other users may enter or replace the folder, a process already listens on the
            socket, or the path is too long or not a socket.
    """
    try:
        path = path.absolute().parent.resolve() / path.name
        if len(os.fsencode(path)) > _LONGEST_SOCKET:
            raise InputError(f"{path}: a socket's path has at most {_LONGEST_SOCKET} bytes")
        before = os.umask(0o077)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        finally:
            os.umask(before)
        _must_be_mine(path.parent)
        if path.exists() and not path.is_socket():
            raise InputError(f"{path}: is there already, and no socket")
        if path.is_socket() and _answers(path):
            raise InputError(f"{path}: somebody listens there already; name another one")
    except FileExistsError:
        raise InputError(f"{path.parent}: is no folder") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    return path


def _must_be_mine(folder: Path) -> None:
    """Check that only this user may enter a folder, and that no other user may replace it.

    Raises:
        InputError: other users may enter the folder, or replace it or one of its parents.
    """
    found = folder.stat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise InputError(
            f"{folder}: others may enter this folder; name one of yours that they may not "
            f"(`chmod 700`), or one that is not there yet"
        )
    for above in folder.parents:
        found = above.stat()
        shared = found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX
        if found.st_uid not in (0, os.getuid()) or shared:
            raise InputError(
                f"{above}: others may replace what is in this folder; name another one"
            )


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as door:
        try:
            door.connect(str(path))
        except ConnectionRefusedError:
            return False
    return True


def page_of(run: RunFolder, name: str) -> str:
    """Return the path of the UI page with the table of a sweep's points.

    Args:
        run: run folder.
        name: name of the sweep.

    Raises:
        InputError: the run has no database yet, or the database is damaged.
    """
    _must_be_there(run)
    try:
        with contextlib.suppress(Timeout), locked(run.path / ".tracking.lock", timeout=1):
            relocate(run.database, run.artifacts.as_uri())  # not while another process writes
        return address_of(run.database, name)
    except (sqlite3.Error, OSError) as error:
        raise InputError(
            f"{run.database}: cannot be read ({error}); move it away, and "
            f"`flexhpc sync {run.path}` makes it again"
        ) from None


def _must_be_there(run: RunFolder) -> None:
    if not run.database.is_file():
        raise InputError(f"{run.path}: has no mlflow.db yet; `flexhpc sync {run.path}` makes it")


def serve(run: RunFolder, port: int, at: Path | None = None) -> None:
    """Replace this process with the UI server; for the arguments see :func:`ui_command`."""
    command = ui_command(run, port, at)
    os.execve(command[0], command, {**UI_ENVIRONMENT, **os.environ})


def newest_run(runs: Path) -> Path:
    """Return the run folder whose run.json was modified last.

    Raises:
        InputError: ``runs`` contains no run.
    """
    run_files = sorted(runs.glob("*/run.json"), key=lambda path: path.stat().st_mtime)
    if not run_files:
        raise InputError(f"{runs}: holds no run yet; `flexhpc sweep SPEC` makes one")
    return run_files[-1].parent
