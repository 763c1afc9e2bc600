"""Command ``sweep``: start or resume a sweep."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flexhpc.cli import options
from flexhpc.cli.specs import plan
from flexhpc.errors import InputError

if TYPE_CHECKING:
    from flexhpc.launch.sweep import SweepResult
    from flexhpc.store import RunFolder
    from flexhpc.store.status import PointStatus

_TAIL_SIZE = 64 * 1024
"""Number of bytes that are read from the end of a log file."""


def sweep(
    spec: options.Spec,
    overrides: options.Set = None,
    profile: options.Profile = None,
    runs: options.RunsFolder = Path("runs"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the plan.")] = False,
    detach: Annotated[
        bool,
        typer.Option(
            "--detach", help="Start the workers and return without waiting for the sweep to end."
        ),
    ] = False,
) -> None:
    """Measure all points of a spec that are not measured yet. The same command resumes a sweep."""
    from flexhpc.launch.prepare import prepare_run
    from flexhpc.launch.profile import SlurmProfile, load_profile

    settings = load_profile(profile)
    if dry_run:
        plan(spec, overrides, profile, runs)
        if isinstance(settings, SlurmProfile):
            from flexhpc.launch.sweep import batch_scripts

            for script in batch_scripts(prepare_run(spec, overrides or (), runs), settings):
                typer.echo(f"\n{script}", nl=False)
        return
    from flexhpc.analysis.tables import make_console
    from flexhpc.launch import sweep as launch

    prepared = prepare_run(spec, overrides or (), runs)
    for name in prepared.edited_code:
        typer.echo(
            f"{name} was edited after this run was started; points that use it are measured again"
        )
    if detach and any(compare.decide for compare in prepared.compare):
        raise InputError(
            "--detach: cannot be combined with compare.decide, because the sweep process chooses "
            "the next points; run the sweep in tmux or screen instead"
        )
    if detach:
        summary = launch.start_detached_workers(prepared, settings)
        path = shlex.quote(str(prepared.run.path))
        typer.echo(f"{summary}; `flexhpc status {path}` shows the status")
        uri = settings.tracking_uri
        option = "" if uri in (None, "none") else f" --uri {uri}"
        typer.echo(f"`flexhpc sync {path}{option}` logs the results to MLflow")
        return
    report_errors: list[Exception | KeyboardInterrupt] = []

    def write_report(statuses: list[PointStatus]) -> None:
        try:
            from flexhpc.analysis.report import report_runs

            report_runs([(prepared.run, statuses)], prepared.run.report)
        except (Exception, KeyboardInterrupt) as error:
            report_errors.append(error)  # raised after the table is printed

    result = launch.run_sweep(prepared, settings, make_console(), write_report)
    _print_outcome(prepared.run, result, report_errors)


def _print_outcome(
    run: RunFolder, result: SweepResult, report_errors: list[Exception | KeyboardInterrupt]
) -> None:
    """Print the results table and the failures; exit with an error status if a point failed.

    Raises:
        typer.Exit: the sweep or its report was interrupted, or points failed.
        Exception: writing the report failed.
    """
    from flexhpc.analysis.comparison import requested_comparisons
    from flexhpc.analysis.tables import print_results
    from flexhpc.launch.tracking_process import tracking_warnings

    statuses, path = result.statuses, shlex.quote(str(run.path))
    compare = [] if result.interrupted else requested_comparisons(run.spec.read_text())
    print_results(statuses, compare, show_reasons=result.interrupted)
    for decision in result.decisions:
        typer.echo(decision.text)
    for line in tracking_warnings(run):
        typer.echo(line, err=True)
    if result.interrupted:
        line = "interrupted; the same command resumes the sweep"
        if result.jobs_continue:
            line = f"interrupted; the jobs continue; `flexhpc cancel {path}` stops them"
        typer.echo(line, err=True)
        raise typer.Exit(options.INTERRUPTED)
    for error in report_errors:
        if isinstance(error, KeyboardInterrupt):
            typer.echo(f"the report was not finished; `flexhpc report {path}` writes it", err=True)
            raise typer.Exit(options.INTERRUPTED)
        raise error
    typer.echo(f"report: {run.report / 'index.html'}\nMLflow: flexhpc ui {path}")
    failed = [replace(s, state="failed") for s in statuses if s.state != "done"]
    _print_failures(failed)
    if failed:
        raise typer.Exit(options.FAILED)


def _print_failures(failed: Sequence[PointStatus]) -> None:
    """Print each distinct failure message once, with the last log lines of one failed point."""
    from flexhpc.analysis.reasons import failures_by_message, points_text

    quoted: set[Path] = set()
    for message, points in failures_by_message(failed).items():
        typer.echo(f"failed: {points_text(points)}: {message}", err=True)
        log = Path(points[0].log)
        if not points[0].log or log in quoted:
            continue
        quoted.add(log)
        lines = _last_lines(log)
        if not lines and log.name.startswith("worker-"):  # killed; other workers may have logs
            log = log.parent
            lines = [] if log in quoted else _last_lines(log)
            quoted.add(log)
        if lines and all(message in line for line in lines):
            continue
        typer.echo(f"  last lines of {log}:", err=True)
        for line in lines or ["(empty)"]:
            typer.echo(f"  | {line}", err=True)


def _last_lines(log: Path, count: int = 12) -> list[str]:
    """Return the last non-empty lines of a log.

    Args:
        log: a folder of logs, or the stderr log of rank 0 of a job. In the latter case, the logs of
            the other ranks are read too.
        count: total number of lines, divided equally among the logs. At least 3 lines are read from
            each log. If ``log`` is a folder, only the last ``count`` lines are returned.
    """
    if log.is_dir():
        paths = sorted(log.glob("*_log.err"))
    else:
        paths = sorted(log.parent.glob(log.name.replace("_0_log.err", "_*_log.err")))
    count_each = max(3, count // max(1, len(paths)))
    lines: list[str] = []
    for path in paths:
        with contextlib.suppress(OSError), path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_SIZE))
            tail = file.read().decode(errors="replace")
            lines += [line for line in tail.splitlines() if line.strip()][-count_each:]
    return lines[-count:] if log.is_dir() else lines
