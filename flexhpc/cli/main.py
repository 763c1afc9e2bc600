"""The one door: every verb of flexhpc. Nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import errno
import json
import sys
import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flexhpc.cli.data import data_app
from flexhpc.cli.specs import specs
from flexhpc.errors import InputError, PointError, one_line
from flexhpc.shipped import found

if TYPE_CHECKING:
    from flexhpc.launch.sweep import Followed
    from flexhpc.store.status import PointStatus

FAILED, WRONG_INPUT, INTERRUPTED = 1, 2, 130
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENAMETOOLONG}

app = typer.Typer(
    help="Measures how much data a neural network can fit: the effective model complexity (EMC).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.add_typer(data_app, name="data")
app.command()(specs)

Spec = Annotated[
    Path,
    typer.Argument(
        metavar="SPEC",
        help="A sweep spec (YAML), or the name of one that comes with flexhpc (`flexhpc specs`).",
        parser=lambda text: found("specs", Path(text)),
    ),
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, as runs/NAME.")]
Runs = Annotated[Path, typer.Option("--runs", help="Folder that holds the run folders.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the spec; may be repeated."),
]
ProfileFile = Annotated[
    Path | None,
    typer.Option(
        "--profile",
        metavar="PROFILE",
        help="Where and how to run (YAML), or the name of a profile that comes with flexhpc.",
        parser=lambda text: found("profiles", Path(text)),
    ),
]
Eps = Annotated[
    list[float] | None,
    typer.Option(
        "--eps",
        metavar="ERROR",
        help="Also estimate EMC at this training error, from the stored probes; may be repeated.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Format(StrEnum):
    """Formats of the results table."""

    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"


@app.command()
def validate(spec: Spec, overrides: Set = None) -> None:
    """Check a sweep spec; prints every error at once."""
    from flexhpc.spec import checked

    _, points = checked(spec, overrides or ())
    typer.echo(f"{spec}: fine, {len(points)} points")


@app.command()
def plan(
    spec: Spec,
    overrides: Set = None,
    profile: ProfileFile = None,
    runs: Runs = Path("runs"),
    params: Annotated[bool, typer.Option("--params", help="Count parameters too.")] = False,
    as_json: Json = False,
) -> None:
    """Show what a sweep would measure: points, ids, what is there already, and a bound on cost."""
    from flexhpc.launch.plan import make_plan, plan_lines

    planned = make_plan(spec, overrides or (), runs, profile, params=params)
    if as_json:
        typer.echo(json.dumps(planned, indent=1))
    else:
        typer.echo("\n".join(plan_lines(planned)))


@app.command()
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
    if detach:
        said = launch.detached(prepared, settings)
        typer.echo(f"{said}; `flexhpc status {prepared.run.path}` follows it")
        uri = settings.tracking_uri
        where = "" if uri in (None, "none") else f" --uri {uri}"
        typer.echo(f"MLflow is filled by `flexhpc sync {prepared.run.path}{where}`")
        return
    _conclude(prepared.run.path, launch.follow(prepared, settings, make_console()))


def _conclude(path: Path, followed: Followed) -> None:
    """Write the report, print the table and what went wrong, and leave with the right status."""
    from flexhpc.analysis.tables import print_results
    from flexhpc.launch.follower import tracking_warnings
    from flexhpc.launch.logs import log_tail
    from flexhpc.store import RunFolder

    statuses = followed.statuses
    print_results(statuses)
    run = RunFolder(path)
    for line in tracking_warnings(run):
        typer.echo(line, err=True)
    if followed.interrupted:
        line = "interrupted; the same command resumes"
        if followed.goes_on:
            line = f"no longer watched; the jobs go on, `flexhpc cancel {path}` ends them"
        typer.echo(line, err=True)
        raise typer.Exit(INTERRUPTED)
    page = _write_report(run.name, [path], statuses, run.report)
    typer.echo(f"report: {page}\nMLflow: flexhpc ui {path}")
    failed = [status for status in statuses if status.state != "done"]
    told = set()
    for status in failed:
        label = status.point.label or status.point.id
        message = status.message or "its worker ended without a result"
        typer.echo(f"failed: {label}: {message}", err=True)
        if status.log and status.log not in told:
            told.add(status.log)
            typer.echo(f"  the last lines of {status.log}:", err=True)
            for line in log_tail(Path(status.log)) or ["(nothing)"]:
                typer.echo(f"  | {line}", err=True)
    if failed:
        raise typer.Exit(FAILED)


@app.command()
def status(
    run: Run,
    as_json: Json = False,
    watch: Annotated[bool, typer.Option("--watch", help="Keep showing it.")] = False,
) -> None:
    """Show where every point stands: the run's files say it, a cluster's queue adds to it."""
    from rich.live import Live

    from flexhpc.analysis.tables import make_console, status_row, status_table
    from flexhpc.launch.slurm.queue_status import QueueStatus
    from flexhpc.store.status import StatusReader, open_run

    folder, _, points = open_run(run)
    reader, queue = StatusReader(folder, points), QueueStatus(folder)
    statuses = queue.merge(reader.read())
    if queue.silent:
        typer.echo(f"{queue.silent}; this is what the files say", err=True)
    if as_json:
        typer.echo(json.dumps([status_row(s) for s in statuses], indent=1))
        return
    console = make_console()
    if watch:
        with Live(console=console, refresh_per_second=2, transient=True) as live:
            while any(s.state not in ("done", "failed") for s in statuses):
                live.update(status_table(statuses, console.height - 2))
                time.sleep(0.5)
                statuses = queue.merge(reader.read())
    console.print(status_table(statuses))


@app.command()
def cancel(run: Run) -> None:
    """Stop what this run has running; every finished probe is kept, and a sweep resumes it."""
    from flexhpc.launch.cancel import cancel_run

    said, stopped = cancel_run(run)
    typer.echo(said)
    if not stopped:
        raise typer.Exit(FAILED)


@app.command()
def results(
    run: Run,
    form: Annotated[Format, typer.Option("--format", help="How to print it.")] = Format.table,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this file instead.")
    ] = None,
    eps: Eps = None,
) -> None:
    """Print the results table: one row per point."""
    from flexhpc.analysis.collect import as_csv, as_json, as_parquet, row_of
    from flexhpc.analysis.tables import print_results
    from flexhpc.analysis.training_error import cut_short, with_errors
    from flexhpc.store.status import StatusReader, open_run

    errors = _errors(eps)
    folder, _, points = open_run(run)
    statuses = with_errors(StatusReader(folder, points).read(), errors)
    if count := cut_short(statuses, errors):
        typer.echo(
            f"{count} probes were given up before their end and count as failing: EMC at a "
            "training error may be too small (docs/search.md)",
            err=True,
        )
    if form is Format.table:
        print_results(statuses)
        return
    rows = [row_of(status) for status in statuses]
    makers = {Format.csv: as_csv, Format.json: as_json}
    content = makers[form](rows).encode() if form in makers else as_parquet(rows)
    if output is not None:
        from flexhpc.atomic import write_atomic

        try:
            write_atomic(output, content)
        except OSError as error:
            raise InputError(f"{output}: cannot be written: {error.strerror}") from None
    elif form is Format.parquet and sys.stdout.isatty():
        raise InputError("parquet is no text for a terminal; give --output FILE, or redirect it")
    else:
        sys.stdout.buffer.write(content)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="One or several runs.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder; by default RUN/report.")
    ] = None,
    eps: Eps = None,
) -> None:
    """Write report/index.html with figures, over one or several runs."""
    from flexhpc.store.status import StatusReader, open_run

    errors = _errors(eps)
    statuses, names = [], []
    for path in runs:
        folder, _, points = open_run(path)
        statuses += StatusReader(folder, points).read()
        names.append(folder.name)
    default = runs[0] / "report" if len(runs) == 1 else Path("report")
    typer.echo(_write_report(", ".join(names), runs, statuses, output or default, errors))


@app.command()
def probe(
    spec: Spec,
    n: Annotated[int, typer.Option("--n", min=1, help="Number of samples.")],
    point: Annotated[str, typer.Option("--point", help="Id or index of the point.")] = "0",
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Use this seed instead of the point's.")
    ] = None,
    repeat: Annotated[int, typer.Option("--repeat", min=0, help="Which training at this n.")] = 0,
    arm: Annotated[int, typer.Option("--arm", min=0, help="Which values of tuned keys.")] = 0,
    overrides: Set = None,
) -> None:
    """Run one training in this process, verbosely: the debugging door. Stores nothing."""
    from flexhpc.cli.probe import one_probe

    one_probe(spec, overrides or (), point, n, seed, repeat, arm, typer.echo)


@app.command()
def sync(
    run: Run,
    uri: Annotated[str | None, typer.Option("--uri", help="MLflow server or database.")] = None,
) -> None:
    """Bring MLflow up to what the store holds; may be repeated."""
    from flexhpc.store.status import open_run
    from flexhpc.tracking.state import local_uri
    from flexhpc.tracking.sync import Syncer

    folder, _, _ = open_run(run)
    target = uri or local_uri(folder)
    try:
        count = Syncer(folder, target).sync()
    except Exception as error:
        what = one_line(error)
        typer.echo(f"MLflow at {target} cannot be written: {what}", err=True)
        raise typer.Exit(FAILED) from None
    typer.echo(f"{count} probes logged to {target}")


@app.command()
def ui(
    run: Annotated[Path | None, typer.Argument(metavar="[RUN]")] = None,
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 5000,
    runs: Runs = Path("runs"),
) -> None:
    """Serve MLflow's UI for a run (by default the newest) on loopback."""
    from flexhpc.store.status import open_run
    from flexhpc.tracking.ui import newest_run, serve

    folder, _, _ = open_run(run if run is not None else newest_run(runs))
    typer.echo(f"http://127.0.0.1:{port}/#/experiments?workflowType=machine_learning")
    serve(folder, port)


@app.command()
def doctor() -> None:
    """Check python, torch, GPU, SLURM, containers, tracking and data, and say what to do."""
    from flexhpc.cli.doctor import examine

    bad = False
    for check in examine():
        typer.echo(f"{check.level:4}  {check.name:10}  {check.what}")
        bad |= check.level == "bad"
    if bad:
        raise typer.Exit(FAILED)


@app.command()
def schema() -> None:
    """Print a JSON schema of sweep specs, for editors."""
    from flexhpc.spec.json_schema import sweep_schema

    typer.echo(json.dumps(sweep_schema(), indent=1))


def _errors(eps: list[float] | None) -> list[float]:
    """Return training errors that can be asked for.

    Raises:
        InputError: one of them is no fraction.
    """
    wrong = [one for one in eps or () if not 0 < one < 1]
    if wrong:
        raise InputError(
            f"--eps {one:g}: must lie between 0 and 1; give 0.1 for one in ten" for one in wrong
        )
    return list(eps or ())


def _write_report(
    title: str,
    runs: list[Path],
    statuses: list[PointStatus],
    folder: Path,
    eps: Sequence[float] = (),
) -> Path:
    from flexhpc.analysis.report import write_report
    from flexhpc.store import RunFolder

    specs = [RunFolder(run).spec.read_text() for run in runs]
    try:
        return write_report(title, statuses, specs, folder, eps)
    except OSError as error:
        raise PointError(f"{folder}: the report cannot be written: {error.strerror}") from None


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
