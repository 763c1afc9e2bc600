"""Commands that show a run: ``status``, ``results``, ``figure``, ``report``."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flexhpc.cli import options
from flexhpc.errors import InputError

if TYPE_CHECKING:
    from flexhpc.store.status import PointStatus


def status(
    run: options.Run,
    as_json: options.Json = False,
    watch: Annotated[bool, typer.Option("--watch", help="Update the table continuously.")] = False,
) -> None:
    """Show the status of every point, from the run folder and the cluster's queue."""
    from flexhpc.analysis.tables import make_console, status_row, status_view
    from flexhpc.launch.progress_view import ProgressView
    from flexhpc.launch.slurm.queue_status import QueueStatus
    from flexhpc.store.status import StatusReader, open_run
    from flexhpc.worker.task import current_selection

    folder, _, points = open_run(run)
    reader, queue = StatusReader(folder, points), QueueStatus(folder)

    def read_statuses() -> list[PointStatus]:
        if (selection := current_selection(folder)) != reader.selection:
            reader.select_points(selection)
        return queue.add_queue_state(reader.read())

    statuses = read_statuses()
    reader.save_index()
    if queue.unavailable:
        typer.echo(f"{queue.unavailable}; showing the status without the queue", err=True)
    if as_json:
        typer.echo(json.dumps([status_row(s) for s in statuses], indent=1))
        _exit_if_failed(statuses)
        return
    console = make_console()
    if watch:
        with ProgressView(console, folder.name) as view:
            while reader.selection or any(s.state not in ("done", "failed") for s in statuses):
                view.update(statuses)
                time.sleep(0.5)
                statuses = read_statuses()
    console.print(status_view(statuses, console.width, show_reasons=False))
    _exit_if_failed(statuses)


def results(
    run: options.Run,
    output_format: Annotated[
        options.ResultsFormat,
        typer.Option("--format", help="Output format; latex requires the package booktabs."),
    ] = "table",
    output: options.Output = None,
    eps: options.Eps = None,
    budget: Annotated[
        list[float] | None,
        typer.Option(
            metavar="BUDGET",
            help="Also estimate the EMC at this budget, from the times at which training runs "
            "fitted all samples. BUDGET is in the unit of the spec's budget, and at most twice the "
            "spec's budget. Above the spec's budget, the estimate is a prediction. Repeat the "
            "option for several budgets.",
        ),
    ] = None,
) -> None:
    """Print the results table: one row per point."""
    from flexhpc.analysis.results import (
        as_csv,
        as_json,
        as_parquet,
        results_row,
        with_budget_estimates,
        with_eps_estimates,
    )
    from flexhpc.analysis.tables import latex_table, print_results
    from flexhpc.store.status import StatusReader, open_run

    errors, budgets = options.validated_training_errors(eps), budget or []
    folder, sweep, points = open_run(run)
    options.check_budgets(budgets, [point.training for point in points])
    reader = StatusReader(folder, points)
    statuses = with_eps_estimates(reader.read(), errors)
    reader.save_index()
    statuses = with_budget_estimates(statuses, budgets)
    if output_format == "table":
        print_results(statuses, sweep.compare, show_reasons=False)
    else:
        rows = [results_row(status) for status in statuses]
        if output_format == "parquet":
            content = as_parquet(rows)
        elif output_format == "latex":
            content = latex_table(statuses).encode()
        else:
            content = (as_csv if output_format == "csv" else as_json)(rows).encode()
        options.write_output(content, output_format, output)
    _exit_if_failed(statuses)


def _exit_if_failed(statuses: Sequence[PointStatus]) -> None:
    """If points failed, print the reasons and exit with status 1.

    The reasons are printed to stderr, because stdout may contain JSON or CSV.

    Raises:
        typer.Exit: a point has failed.
    """
    from flexhpc.analysis.reasons import failure_lines

    lines = failure_lines(statuses)
    for line in lines:
        typer.echo(line, err=True)
    if lines:
        raise typer.Exit(options.FAILED)


def _parse_size(text: str) -> tuple[float, float]:
    try:
        width, height = map(float, text.split("x"))
    except ValueError:
        raise InputError(
            f"--size {text}: must be WIDTHxHEIGHT in inches, such as 3.3x2.5"
        ) from None
    return width, height


def figure(
    run: options.Run,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Output file, which ends in .pdf, .svg or .png."),
    ],
    x: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="Swept key on the x axis, or `params`, the number of parameters. If the values of "
            "KEY are not numbers, each value is a row. By default, as in the report.",
        ),
    ] = None,
    y: Annotated[
        Literal["emc", "emc_per_param", "doubling"],
        typer.Option(help="Plotted column of the results; `doubling` is the column 2x budget."),
    ] = "emc",
    facet: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="Swept key whose values have separate axes. By default, as in the report.",
        ),
    ] = None,
    size: Annotated[
        str,
        typer.Option(
            metavar="WIDTHxHEIGHT",
            help="Size in inches, including axes and legend. Text has a size of 8 points.",
        ),
    ] = "3.3x2.5",
    style: Annotated[Literal["light", "dark"], typer.Option(help="Colours.")] = "light",
) -> None:
    """Write a figure for a publication: EMCs with intervals, and a legend."""
    from flexhpc.analysis.figures.chart import SUFFIXES, UNKNOWN_FORMAT
    from flexhpc.analysis.figures.publication import omitted_points_text, publication_figure
    from flexhpc.store.status import StatusReader, open_run

    inches = _parse_size(size)
    if output.suffix not in SUFFIXES:
        raise InputError(f"{output}: {UNKNOWN_FORMAT}")
    folder, _, points = open_run(run)
    statuses = StatusReader(folder, points).read()
    chart = publication_figure(statuses, x=x, y=y, facet=facet, size=inches, style=style)
    try:
        chart.save(output.resolve())
    except OSError as error:
        raise InputError(f"{output}: cannot be written: {error.strerror}") from None
    typer.echo(output)
    if omitted := omitted_points_text(statuses, y):
        typer.echo(omitted, err=True)


def report(
    runs: options.RunList,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Output folder. Default: RUN/report, or ./report if several runs are passed.",
        ),
    ] = None,
    eps: options.Eps = None,
) -> None:
    """Write an HTML report on one or several runs, with figures."""
    from flexhpc.analysis.report import report_runs
    from flexhpc.store.status import read_runs

    errors = options.validated_training_errors(eps)
    read = [(folder, statuses) for folder, _, statuses in read_runs(runs)]
    default = runs[0] / "report" if len(runs) == 1 else Path("report")
    typer.echo(report_runs(read, output or default, errors))
