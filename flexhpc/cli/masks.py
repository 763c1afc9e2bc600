"""The verb ``masks``: what the trainings of a sweep say of each sample."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flexhpc.cli.options import Format, RunsGiven, written
from flexhpc.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from flexhpc.analysis.samples import Agreement, SampleScores


def masks(
    runs: RunsGiven,
    by: Annotated[
        list[str] | None,
        typer.Option("--by", metavar="KEY", help="Keep values of this key apart; may be repeated."),
    ] = None,
    agreement: Annotated[
        bool,
        typer.Option("--agreement", help="With --by: do its values find the same samples hard?"),
    ] = False,
    top: Annotated[int, typer.Option("--top", min=1, help="Rows of each table.")] = 20,
    form: Annotated[Format, typer.Option("--format", help="How to print it.")] = Format.table,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this file instead.")
    ] = None,
) -> None:
    """Show per sample how often it was drawn, missed and blocked a fit; hardest first.

    A table shows the hardest; csv, json and parquet hold every sample, by its global id.
    """
    from flexhpc.analysis.samples import agreements, frame_of, scores_of
    from flexhpc.store.status import StatusReader, open_run

    opened = [open_run(path) for path in runs]
    points = ((run, one) for run, _, some in opened for one in StatusReader(run, some).read())
    groups = scores_of(points, by or ())
    if agreement:
        if not by:
            raise InputError("--agreement: needs --by KEY, whose values are compared")
        _print_agreements(agreements(groups))
        return
    if form is Format.table and output is None:
        for scores in groups:
            _print(scores, top)
        return
    written(_bytes(frame_of(groups), form), form, output)


def _bytes(frame: pd.DataFrame, form: Format) -> bytes:
    if form is Format.parquet:
        return bytes(frame.to_parquet(index=False))
    if form is Format.json:
        return (frame.to_json(orient="records") + "\n").encode()
    return frame.to_csv(index=False, lineterminator="\n").encode()


def _print(scores: SampleScores, top: int) -> None:
    """Print the hardest samples of one group as a table."""
    from rich.table import Table

    from flexhpc.analysis.samples import title
    from flexhpc.analysis.tables import make_console

    table = Table(box=None, pad_edge=False, header_style="bold")
    unseen = bool(scores.asked.any())
    more = ("right unseen", "memorization") if unseen else ()
    for name in ("sample", "drawn", "missed", "expected", "hardness", "blocks", *more):
        table.add_column(name, justify="right", no_wrap=True)
    for sample in scores.hardest(top):
        cells = [
            str(sample), str(scores.drawn[sample]), str(scores.missed[sample]),
            f"{scores.expected[sample]:.1f}", f"{scores.hardness[sample]:.1f}",
            f"{scores.blocks[sample]:.2f}",
        ]  # fmt: skip
        if unseen:
            asked = scores.asked[sample]
            cells += [f"{scores.right[sample]}/{asked}", f"{scores.memorization[sample]:.2f}"]
        table.add_row(*cells)
    console = make_console()
    console.print(title(scores), highlight=False)
    console.print(table)
    never = int((scores.drawn > 0).sum() - (scores.missed > 0).sum())
    console.print(f"{never:,} of the samples drawn were fitted by every training", highlight=False)


def _print_agreements(found: list[Agreement]) -> None:
    from rich.table import Table

    from flexhpc.analysis.tables import make_console

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("first", "second"):
        table.add_column(name, no_wrap=True)
    for name in ("samples", "correlation", "reliability", "corrected"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in found:
        table.add_row(
            one.first, one.second, f"{one.samples:,}", f"{one.correlation:.2f}",
            " and ".join(f"{part:.2f}" for part in one.reliability),
            "too noisy" if one.corrected is None else f"{one.corrected:.2f}",
        )  # fmt: skip
    make_console().print(table)
