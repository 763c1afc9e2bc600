"""Entry point of the command line. Heavy modules are imported only by commands that need them."""

from __future__ import annotations

import atexit
import errno
import gc
import sys
from typing import Annotated

import typer

from flexhpc.cli import options
from flexhpc.cli.compare import compare
from flexhpc.cli.data import data_app
from flexhpc.cli.doctor import doctor
from flexhpc.cli.masks import masks
from flexhpc.cli.probe import probe
from flexhpc.cli.results import figure, report, results, status
from flexhpc.cli.runs import cancel, pack, sync, ui, unpack
from flexhpc.cli.specs import plan, schema, specs, validate
from flexhpc.cli.sweep import sweep
from flexhpc.errors import InputError, PointError

_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENAMETOOLONG}

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        typer.echo(f"flexhpc {version('flexhpc')}")
        raise typer.Exit


@app.callback()
def flexhpc(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Measures how much data a neural network can fit: the effective model complexity (EMC)."""


for command in (
    validate, plan, sweep, status, results, figure, report, compare, masks, cancel, pack, unpack,
    specs, schema, probe, sync, ui, doctor,
):  # fmt: skip
    app.command()(command)
app.add_typer(data_app, name="data")


def main() -> None:
    """Run the command line. Errors that a user can cause are printed without a traceback."""
    # By default, collections take half of the time in which a table of 10,000 points is formatted.
    gc.set_threshold(100_000)
    atexit.register(gc.freeze)  # skip the garbage collection at exit, which takes 0.1 s
    try:
        app()
    except InputError as error:
        for line in error.lines:
            typer.echo(line, err=True)
        sys.exit(options.WRONG_INPUT)
    except PointError as error:
        typer.echo(str(error), err=True)
        sys.exit(options.FAILED)
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        typer.echo(
            f"{error.filename or 'cannot write a file'}: {error.strerror}; stored results are kept",
            err=True,
        )
        sys.exit(options.FAILED)
    except MemoryError:
        typer.echo("out of memory; use a smaller data set or more memory", err=True)
        sys.exit(options.FAILED)
    except KeyboardInterrupt:
        sys.exit(options.INTERRUPTED)
