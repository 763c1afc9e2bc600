"""Commands ``pack`` and ``unpack``: archive a run in a single file and restore it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flexhpc.cli.options import Run, Runs
from flexhpc.errors import InputError, one_line


def pack(
    run: Run,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file; by default NAME.zip here.")
    ] = None,
) -> None:
    """Pack a run's record into one file, to archive it, to move it or to save inodes."""
    from flexhpc.store.archive import pack as write
    from flexhpc.store.status import open_run

    folder, _, _ = open_run(run)
    archive = output or Path(f"{folder.name}.zip")
    try:
        count = write(folder, archive)
    except OSError as error:
        raise InputError(
            f"{error.filename or archive}: cannot be packed: {one_line(error)}"
        ) from None
    typer.echo(f"{archive}: {count} files, {archive.stat().st_size / 1e6:,.1f} MB")


def unpack(
    archive: Annotated[Path, typer.Argument(metavar="FILE", help="A packed run.")],
    runs: Runs = Path("runs"),
) -> None:
    """Restore a run folder from its packed file; an unfinished run can be resumed."""
    from flexhpc.store.archive import unpack as read

    try:
        typer.echo(read(archive, runs).path)
    except OSError as error:
        raise InputError(f"{archive}: cannot be unpacked: {error.strerror or error}") from None
