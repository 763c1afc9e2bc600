"""Commands for MLflow: ``sync``, ``ui``."""

from __future__ import annotations

import platform
import shlex
from pathlib import Path
from typing import Annotated

import typer

from flexhpc.cli.options import FAILED, Run, Runs, run_folder
from flexhpc.errors import InputError, one_line


def sync(
    run: Run,
    uri: Annotated[str | None, typer.Option("--uri", help="MLflow server or database.")] = None,
) -> None:
    """Log the stored results of a run to MLflow; may be repeated."""
    from flexhpc.store.status import open_run
    from flexhpc.tracking.state import NO_PASSWORD, has_password, local_uri
    from flexhpc.tracking.sync import Syncer

    folder, _, _ = open_run(run)
    if has_password(uri):
        raise InputError(f"--uri: {NO_PASSWORD}")
    target = uri or local_uri(folder)
    try:
        count = Syncer(folder, target).sync()
    except Exception as error:
        what = one_line(error)
        typer.echo(f"MLflow at {target} cannot be written: {what}", err=True)
        raise typer.Exit(FAILED) from None
    typer.echo(f"{count} probes logged to {target}")


def ui(
    run: Annotated[
        Path | None,
        typer.Argument(metavar="[RUN]", help="As of status; the newest.", parser=run_folder),
    ] = None,
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 5000,
    socket: Annotated[
        bool,
        typer.Option("--socket", help="Serve on a Unix socket that only you can reach."),
    ] = False,
    runs: Runs = Path("runs"),
) -> None:
    """Serve MLflow's UI for a run (by default the newest) on loopback, or on a socket."""
    from flexhpc.store.status import open_run
    from flexhpc.tracking.ui import newest_run, page_of, private_socket, serve

    folder, sweep, _ = open_run(run if run is not None else newest_run(runs))
    page = page_of(folder, sweep.name)
    at = private_socket() if socket else None
    if at is not None:
        typer.echo("On your own machine, and then open the address there:")
        typer.echo(f"ssh -N -L {port}:{shlex.quote(str(at))} {platform.node()}")
    typer.echo(f"http://127.0.0.1:{port}{page}")
    serve(folder, port, at)
