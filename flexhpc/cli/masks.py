"""Command ``masks``: show statistics of each sample over the training runs of a sweep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from flexhpc.cli import options
from flexhpc.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from flexhpc.analysis.samples import Agreement, SampleScores


def masks(
    runs: options.RunList,
    by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            help="Score samples separately for each value of this key. Repeat the option for "
            "several keys.",
        ),
    ] = None,
    agreement: Annotated[
        bool,
        typer.Option(
            "--agreement",
            help="With --by KEY: for each pair of values of KEY, print the correlation of the "
            "samples' hardness under the two values.",
        ),
    ] = False,
    top: Annotated[int, typer.Option(min=1, help="Number of rows of each table.")] = 20,
    output_format: options.TableFormat = "table",
    output: options.Output = None,
) -> None:
    """Show how often each sample was drawn for training and missed, and its hardness.

    The table contains only the hardest samples. The formats csv, json and parquet contain all
    samples that were drawn or evaluated, in the order of their global ids.
    """
    from flexhpc.analysis.samples import agreements, data_frame_of, sample_scores
    from flexhpc.store.status import read_runs

    points = [(run, status) for run, _, statuses in read_runs(runs) for status in statuses]
    groups = sample_scores(points, by or ())
    if agreement:
        if not by:
            raise InputError("--agreement: requires --by KEY, to compare the values of this key")
        _print_agreements(agreements(groups))
        return
    if output_format == "table" and output is None:
        for scores in groups:
            _print_hardest(scores, top)
        return
    options.write_output(_encode(data_frame_of(groups), output_format), output_format, output)


def _encode(frame: pd.DataFrame, output_format: options.Format) -> bytes:
    if output_format == "parquet":
        return bytes(frame.to_parquet(index=False))
    if output_format == "json":
        return (frame.to_json(orient="records") + "\n").encode()
    from flexhpc.analysis.results import csv_cell

    text = frame.select_dtypes(["object", "string"]).columns
    frame[text] = frame[text].map(csv_cell)
    return frame.to_csv(index=False, lineterminator="\n").encode()


def _print_hardest(scores: SampleScores, top: int) -> None:
    """Print a table of the ``top`` hardest samples in one group of points."""
    from flexhpc.analysis.samples import group_title
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
    if scores.unseen.any():
        columns["right unseen"] = [f"{scores.unseen_correct[i]}/{scores.unseen[i]}" for i in ids]
        memorization = scores.memorization
        columns["memorization"] = [f"{memorization[i]:.2f}" for i in ids]
    if scores.watched.any():
        forgetting = scores.forgetting
        columns["never right"] = [f"{scores.never_correct[i]}/{scores.watched[i]}" for i in ids]
        columns["forgetting"] = [f"{forgetting[i]:.1f}" for i in ids]
    console = make_console()
    console.print(group_title(scores), highlight=False)
    _print_table(columns, console)
    always = int((scores.drawn > 0).sum() - (scores.missed > 0).sum())
    console.print(f"{always:,} samples were fitted every time they were drawn", highlight=False)


def _print_agreements(pairs: list[Agreement]) -> None:
    from flexhpc.analysis.tables import make_console

    columns = {
        "first": [pair.first for pair in pairs],
        "second": [pair.second for pair in pairs],
        "samples": [f"{pair.samples:,}" for pair in pairs],
        "correlation": [f"{pair.correlation:.2f}" for pair in pairs],
        "reliability": [" and ".join(f"{r:.2f}" for r in pair.reliability) for pair in pairs],
        "corrected": [
            "too noisy" if pair.corrected is None else f"{pair.corrected:.2f}" for pair in pairs
        ],
    }
    _print_table(columns, make_console())


def _print_table(columns: dict[str, list[str]], console: Console) -> None:
    """Print a table; in a narrow terminal, names are truncated, but numbers are not."""
    from flexhpc.analysis.tables import Column, fitted_table

    fitted = [
        Column(name=name, cells=cells, min_width=12)
        if name in ("first", "second")
        else Column(name=name, cells=cells, align_right=True)
        for name, cells in columns.items()
    ]
    console.print(fitted_table(fitted, console.width))
