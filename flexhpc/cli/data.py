"""Commands of ``flexhpc data``. Heavy modules are imported only by commands that need them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flexhpc.errors import InputError, PointError

if TYPE_CHECKING:
    from rich.progress import TaskID

    from flexhpc.data.packed import PackedFile

data_app = typer.Typer(help="Prepare data sets.", no_args_is_help=True, rich_markup_mode=None)


@data_app.command("prepare")
def prepare_data(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Value of data.source.")],
    root: Annotated[str | None, typer.Option(help="Value of data.root.")] = None,
    path: Annotated[str | None, typer.Option(help="Value of data.path.")] = None,
    target: Annotated[
        str | None,
        typer.Option(help="Column, array or file extension that contains the classes."),
    ] = None,
    side: Annotated[
        int | None, typer.Option(help="Resize images to this side length (pixels).")
    ] = None,
    colour: Annotated[str | None, typer.Option(help="Convert images to grey or rgb.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="data.KEY=VALUE",
            help="Set another data key that affects how samples are read. Repeat the option to set "
            "several keys.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Output file; by default data/NAME.packed, where NAME is SOURCE or, for data "
            "in your own files, the name of the file or folder.",
        ),
    ] = None,
) -> None:
    """Pack a data set into one file that loads fast.

    To use the packed file, set data.root or data.path in a spec to the path of this file.
    """
    from flexhpc.data.prepare import pack_data_set

    options = {"root": root, "path": path, "target": target, "side": side, "colour": colour}
    with _show_progress() as progress:
        packed = pack_data_set(source, options, overrides or (), out, progress)
    _print_packed(packed)


@data_app.command("check")
def check_data(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A file that `flexhpc data prepare` wrote.")
    ],
) -> None:
    """Verify the checksums of a packed file."""
    from flexhpc.data.packed import verify_packed

    with _show_progress() as progress:
        packed = verify_packed(file, progress)
    _print_packed(packed)


@contextlib.contextmanager
def _show_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Yield a callback that updates progress bars on stderr, shown only if stderr is a terminal.

    PointError is converted to InputError, because these commands do not measure points.
    """
    from rich.console import Console
    from rich.progress import Progress

    bars = Progress(console=Console(stderr=True), disable=not sys.stderr.isatty())
    tasks: dict[str, TaskID] = {}

    def update(step: str, done: int, total: int) -> None:
        if step not in tasks:
            tasks[step] = bars.add_task(step, total=total)
        bars.update(tasks[step], completed=done)

    try:
        with bars:
            yield update
    except PointError as error:
        raise InputError(str(error)) from None


def _print_packed(packed: PackedFile) -> None:
    train, test = packed.source.train, packed.source.open_test()
    assert packed.source.summary is not None
    shape = "x".join(map(str, train.shape))
    test_size = f"{len(test.labels):,} test samples" if test is not None else "no test set"
    typer.echo(
        f"{packed.path}: valid, {len(train.labels):,} samples of {shape}, {test_size}, "
        f"{packed.size / 1e6:,.1f} MB, fingerprint {packed.source.summary.fingerprint}"
    )
