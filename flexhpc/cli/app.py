"""The one door: every verb of flexhpc. Nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import errno
import sys

import typer

from flexhpc.cli.archive import pack, unpack
from flexhpc.cli.data import data_app
from flexhpc.cli.doctor import doctor
from flexhpc.cli.options import FAILED, INTERRUPTED, WRONG_INPUT
from flexhpc.cli.probe import probe
from flexhpc.cli.results import report, results, status
from flexhpc.cli.specs import schema, specs
from flexhpc.cli.sweep import cancel, plan, sweep, validate
from flexhpc.cli.tracking import sync, ui
from flexhpc.errors import InputError, PointError

_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENAMETOOLONG}

app = typer.Typer(
    help="Measures how much data a neural network can fit: the effective model complexity (EMC).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for verb in (
    validate, plan, sweep, status, results, report, cancel, pack, unpack, specs, schema, probe,
    sync, ui, doctor,
):  # fmt: skip
    app.command()(verb)
app.add_typer(data_app, name="data")


def main() -> None:
    """Run the command line; the user's errors are lines, not tracebacks."""
    try:
        app()
    except InputError as error:
        for line in error.lines:
            typer.echo(line, err=True)
        sys.exit(WRONG_INPUT)
    except PointError as error:
        typer.echo(str(error), err=True)
        sys.exit(FAILED)
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        typer.echo(
            f"{error.filename or 'writing'}: {error.strerror}; nothing stored is lost", err=True
        )
        sys.exit(FAILED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
