"""Commands of a sweep: ``validate``, ``plan``, ``sweep``, ``cancel``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flexhpc.cli.options import FAILED, INTERRUPTED, Json, ProfileFile, Run, Runs, Set, Spec
from flexhpc.cli.results import expected_report, write_report
from flexhpc.errors import InputError, PointError

if TYPE_CHECKING:
    from flexhpc.launch.sweep import Followed
    from flexhpc.store.status import PointStatus


def validate(
    spec: Spec,
    overrides: Set = None,
    look: Annotated[
        bool, typer.Option(help="Open the data, and build networks of timm and of your own.")
    ] = True,
) -> None:
    """Check a sweep spec; print all errors at once."""
    from flexhpc.config import checked
    from flexhpc.launch.plan import counted

    _, points = checked(spec, overrides or ())
    if look:
        from flexhpc.measuring.validate import validate as validate_points

        found = list(validate_points(points))
        if wrong := [f"{spec}: {what}" for error, what in found if error]:
            raise InputError(wrong)
        for _, what in found:
            typer.echo(f"not here: {what}")
    typer.echo(f"{spec}: fine, {counted(len(points), 'point')}")


def plan(
    spec: Spec,
    overrides: Set = None,
    profile: ProfileFile = None,
    runs: Runs = Path("runs"),
    params: Annotated[bool, typer.Option("--params", help="Count parameters too.")] = False,
    as_json: Json = False,
) -> None:
    """Show what a sweep would measure: points, ids, which are done, and a bound on the cost."""
    from flexhpc.launch.plan import make_plan, plan_lines

    planned = make_plan(spec, overrides or (), runs, profile, params=params)
    if as_json:
        typer.echo(json.dumps(planned, indent=1))
    else:
        typer.echo("\n".join(plan_lines(planned)))


def sweep(
    spec: Spec,
    overrides: Set = None,
    profile: ProfileFile = None,
    runs: Runs = Path("runs"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan only.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Return once it has started.")] = False,
) -> None:
    """Measure every point of a spec that is not measured yet; the same command resumes."""
    from flexhpc.launch.load_profile import load_profile
    from flexhpc.launch.prepare import prepare
    from flexhpc.launch.profile import SlurmProfile

    settings = load_profile(profile)
    if dry_run:
        plan(spec, overrides, profile, runs)
        if isinstance(settings, SlurmProfile):
            from flexhpc.launch.sweep import scripts

            for script in scripts(prepare(spec, overrides or (), runs), settings):
                typer.echo(f"\n{script}", nl=False)
        return
    from flexhpc.analysis.tables import make_console
    from flexhpc.launch import sweep as launch

    prepared = prepare(spec, overrides or (), runs)
    for name in prepared.edited:
        typer.echo(f"{name} was edited since this run was started: measuring its points anew")
    if detach:
        summary = launch.detached(prepared, settings)
        typer.echo(f"{summary}; `flexhpc status {prepared.run.path}` follows it")
        uri = settings.tracking_uri
        where = "" if uri in (None, "none") else f" --uri {uri}"
        typer.echo(f"MLflow is filled by `flexhpc sync {prepared.run.path}{where}`")
        return
    unwritten: list[Exception] = []

    def report(statuses: list[PointStatus]) -> None:
        run = prepared.run
        try:
            masks = [(run, status) for status in statuses]
            write_report(run.name, [run.path], statuses, run.report, masks)
        except KeyboardInterrupt:
            what = f"the report was not finished; `flexhpc report {run.path}` writes it"
            unwritten.append(PointError(what))
        except Exception as error:
            unwritten.append(error)  # raised after the table is printed

    followed = launch.follow(prepared, settings, make_console(), report, expected_report())
    _conclude(prepared.run.path, followed, unwritten)


def _conclude(path: Path, followed: Followed, unwritten: list[Exception]) -> None:
    """Print the results table and the failures; exit with the corresponding status.

    Args:
        path: the run folder.
        followed: outcome of the sweep.
        unwritten: errors from writing the report.

    Raises:
        typer.Exit: the sweep was interrupted, or points failed.
        Exception: the error from writing the report, if there is one.
    """
    from flexhpc.analysis.comparison import asked_by
    from flexhpc.analysis.failures import by_reason, named
    from flexhpc.analysis.tables import print_results
    from flexhpc.launch.follower import tracking_warnings
    from flexhpc.launch.logs import log_tail
    from flexhpc.store import RunFolder

    statuses = followed.statuses
    run = RunFolder(path)
    asked = [] if followed.interrupted else asked_by(run.spec.read_text())
    print_results(statuses, asked, why=followed.interrupted)
    for line in tracking_warnings(run):
        typer.echo(line, err=True)
    if followed.interrupted:
        line = "interrupted; the same command resumes"
        if followed.goes_on:
            line = f"no longer watched; the jobs go on, `flexhpc cancel {path}` ends them"
        typer.echo(line, err=True)
        raise typer.Exit(INTERRUPTED)
    for error in unwritten:
        raise error
    typer.echo(f"report: {run.report / 'index.html'}\nMLflow: flexhpc ui {path}")
    quoted = set()
    failed = [replace(s, state="failed") for s in statuses if s.state != "done"]
    for message, alike in by_reason(failed).items():
        status = alike[0]
        typer.echo(f"failed: {named(alike)}: {message}", err=True)
        if status.log and status.log not in quoted:
            quoted.add(status.log)
            log = Path(status.log)
            lines = log_tail(log)
            if not lines and log.name.startswith("worker-"):  # killed; newer workers have logs
                log = log.parent
                lines = [] if str(log) in quoted else log_tail(log)
                quoted.add(str(log))
            if lines and all(message in line for line in lines):
                continue
            typer.echo(f"  the last lines of {log}:", err=True)
            for line in lines or ["(nothing)"]:
                typer.echo(f"  | {line}", err=True)
    if failed:
        raise typer.Exit(FAILED)


def cancel(run: Run) -> None:
    """Stop all running and queued work of this run; finished probes are kept, so it can resume."""
    from flexhpc.launch.cancel import cancel_run

    message, stopped = cancel_run(run)
    typer.echo(message)
    if not stopped:
        raise typer.Exit(FAILED)
