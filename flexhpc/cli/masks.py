"""Command ``masks``: statistics of each sample over the trainings of a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flexhpc.cli.options import Format, RunsGiven, written
from flexhpc.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

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
    from flexhpc.store.status import read_runs

    points = [(folder, one) for folder, _, some in read_runs(runs) for one in some]
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
    from flexhpc.analysis.collect import cell_of

    text = frame.select_dtypes(["object", "string"]).columns
    frame[text] = frame[text].map(lambda value: cell_of(value) if isinstance(value, str) else value)
    return frame.to_csv(index=False, lineterminator="\n").encode()


def _print(scores: SampleScores, top: int) -> None:
    """Print the hardest samples of one group as a table."""
    from flexhpc.analysis.samples import title
    from flexhpc.analysis.tables import make_console

    ids = scores.hardest(top)
    missed, expected, hardness = scores.missed, scores.expected, scores.hardness
    columns = {
        "sample": [str(i) for i in ids],
        "drawn": [str(scores.drawn[i]) for i in ids],
        "missed": [str(missed[i]) for i in ids],
        "expected": [f"{expected[i]:.1f}" for i in ids],
        "hardness": [f"{hardness[i]:.1f}" for i in ids],
        "blocks": [f"{scores.blocks[i]:.2f}" for i in ids],
    }
    if scores.asked.any():
        columns["right unseen"] = [f"{scores.right[i]}/{scores.asked[i]}" for i in ids]
        memorization = scores.memorization
        columns["memorization"] = [f"{memorization[i]:.2f}" for i in ids]
    if scores.watched.any():
        forgetting = scores.forgetting
        columns["never right"] = [f"{scores.never_right[i]}/{scores.watched[i]}" for i in ids]
        columns["forgetting"] = [f"{forgetting[i]:.1f}" for i in ids]
    console = make_console()
    console.print(title(scores), highlight=False)
    console.print(_table(columns, console.width))
    never = int((scores.drawn > 0).sum() - (scores.missed > 0).sum())
    console.print(f"{never:,} of the samples drawn were fitted by every training", highlight=False)


def _print_agreements(found: list[Agreement]) -> None:
    from flexhpc.analysis.tables import make_console

    columns = {
        "first": [one.first for one in found],
        "second": [one.second for one in found],
        "samples": [f"{one.samples:,}" for one in found],
        "correlation": [f"{one.correlation:.2f}" for one in found],
        "reliability": [" and ".join(f"{r:.2f}" for r in one.reliability) for one in found],
        "corrected": [
            "too noisy" if one.corrected is None else f"{one.corrected:.2f}" for one in found
        ],
    }
    console = make_console()
    console.print(_table(columns, console.width))


def _table(columns: dict[str, list[str]], width: int) -> Table:
    """Return a table that truncates names in a narrow terminal, but never numbers."""
    from flexhpc.analysis.whole_columns import Column, table_of

    names = ("first", "second")
    return table_of(
        [
            Column(name=name, cells=cells, right=name not in names,
                   least=12 if name in names else None)
            for name, cells in columns.items()
        ],
        width,
    )  # fmt: skip
