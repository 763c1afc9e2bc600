"""Commands on a stored run: ``cancel``, ``pack``, ``unpack``, ``sync``, ``ui``."""

from __future__ import annotations

import platform
import shlex
from pathlib import Path
from typing import Annotated

import typer

from flexhpc.cli import options
from flexhpc.errors import InputError, one_line_message


def cancel(run: options.Run) -> None:
    """Stop all workers and jobs of a run; finished probes are kept, so the run can be resumed."""
    from flexhpc.launch.cancel import cancel_run

    message, stopped = cancel_run(run)
    typer.echo(message)
    if not stopped:
        raise typer.Exit(options.FAILED)


def pack(
    run: options.Run,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Output file; by default NAME.zip, where NAME is the name of the run folder.",
        ),
    ] = None,
) -> None:
    """Pack a run into one zip file, to archive or move it, or to save inodes."""
    from flexhpc.store.archive import pack_run
    from flexhpc.store.status import open_run

    folder, _, _ = open_run(run)
    archive = output or Path(f"{folder.name}.zip")
    try:
        count = pack_run(folder, archive)
    except OSError as error:
        path = error.filename or archive
        raise InputError(f"{path}: cannot be packed: {one_line_message(error)}") from None
    typer.echo(f"{archive}: {count} files, {archive.stat().st_size / 1e6:,.1f} MB")


def unpack(
    archive: Annotated[Path, typer.Argument(metavar="FILE", help="A packed run.")],
    runs: options.RunsFolder = Path("runs"),
) -> None:
    """Restore a run folder from a packed run; an unfinished run can be resumed."""
    from flexhpc.store.archive import unpack_run

    try:
        typer.echo(unpack_run(archive, runs).path)
    except OSError as error:
        raise InputError(f"{archive}: cannot be unpacked: {error.strerror or error}") from None


def sync(
    run: options.Run,
    uri: Annotated[
        str | None,
        typer.Option(help="URI of an MLflow server or database; by default mlflow.db in RUN."),
    ] = None,
) -> None:
    """Log the stored results of a run to MLflow. Results that are already logged are skipped."""
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
        typer.echo(f"cannot log to MLflow at {target}: {one_line_message(error)}", err=True)
        raise typer.Exit(options.FAILED) from None
    typer.echo(f"{count} probes logged to {target}")


def ui(
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN]",
            help="A run folder, or its name in runs/. By default the newest run.",
            parser=options.find_run_folder,
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="TCP port.")] = 5000,
    socket: Annotated[
        bool,
        typer.Option("--socket", help="Serve on a Unix socket that only you can access."),
    ] = False,
    runs: options.RunsFolder = Path("runs"),
) -> None:
    """Serve the MLflow UI for a run on the loopback interface, or on a Unix socket."""
    from flexhpc.store.status import open_run
    from flexhpc.tracking import ui as server

    folder, sweep, _ = open_run(run if run is not None else server.newest_run(runs))
    if not socket:
        server.check_port(port)
    page = server.ui_page(folder, sweep.name)
    address = server.make_private_socket_path() if socket else None
    if address is not None:
        typer.echo(
            "Run this command on your own machine, then open the address in a browser there:"
        )
        typer.echo(f"ssh -N -L {port}:{shlex.quote(str(address))} {platform.node()}")
    typer.echo(f"http://127.0.0.1:{port}{page}")
    server.exec_ui_server(folder, port, address)
