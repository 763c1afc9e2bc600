"""Commands on specs: ``validate``, ``plan``, ``specs``, ``schema``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from flexhpc.cli import options
from flexhpc.errors import InputError
from flexhpc.shipped import shipped_folder, shipped_names


def validate(
    spec: options.Spec,
    overrides: options.Set = None,
    load: Annotated[
        bool,
        typer.Option(
            help="Also open the data, and build timm and custom networks, to find errors in them."
        ),
    ] = True,
) -> None:
    """Check a sweep spec; print all errors at once."""
    from flexhpc.config import load_points
    from flexhpc.launch.plan import count_text

    _, points = load_points(spec, overrides or ())
    if load:
        from flexhpc.measuring.point_checks import check_points

        problems = check_points(points)
        if errors := [f"{spec}: {message}" for message, is_error in problems.items() if is_error]:
            raise InputError(errors)
        for message in problems:
            typer.echo(f"warning: {message}")
    count = sum(not point.optional for point in points)
    typer.echo(f"{spec}: valid, {count_text(count, 'point')}")


def plan(
    spec: options.Spec,
    overrides: options.Set = None,
    profile: options.Profile = None,
    runs: options.RunsFolder = Path("runs"),
    params: Annotated[bool, typer.Option("--params", help="Show parameter counts.")] = False,
    time: Annotated[
        bool,
        typer.Option(
            "--time", help="Time a few updates on this machine; show an upper bound on the time."
        ),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Show the points of a sweep with their ids and states, and an upper bound on the cost."""
    from flexhpc.launch.plan import make_plan, plan_lines

    planned = make_plan(
        spec, overrides or (), runs, profile, count_params=params, time_training=time
    )
    if as_json:
        typer.echo(json.dumps(planned, indent=1))
    else:
        typer.echo("\n".join(plan_lines(planned)))


def specs(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Spec to print.")] = None,
) -> None:
    """List the specs shipped with flexhpc, or print one: flexhpc specs NAME > mine.yaml."""
    folder = shipped_folder("specs")
    texts = {spec: (folder / f"{spec}.yaml").read_text() for spec in shipped_names("specs")}
    if name is None:
        for spec, text in texts.items():
            typer.echo(f"{spec:24} {_expected_result(text)}")
        return
    if name not in texts:
        raise InputError(f"{name}: unknown spec; use one of {', '.join(texts)}")
    typer.echo(_with_flexhpc_command(texts[name]), nl=False)


def schema() -> None:
    """Print the JSON schema of sweep specs, for completion in editors."""
    from flexhpc.config.json_schema import sweep_schema

    typer.echo(json.dumps(sweep_schema(), indent=1))


def _with_flexhpc_command(text: str) -> str:
    """Replace the ``make`` command in the header of a spec with a ``flexhpc`` command."""

    def flexhpc_command(match: re.Match[str]) -> str:
        sets = re.sub(r"\S+=\S+", lambda setting: f"--set '{setting[0]}'", match["sets"] or "")
        return f"flexhpc sweep {match['name']} {sets}".rstrip()

    pattern = r"make sweep SPEC=sweeps/(?P<name>\S+)\.yaml(?: SET=\"(?P<sets>[^\"]*)\")?"
    return re.sub(pattern, flexhpc_command, text)


def _expected_result(text: str) -> str:
    """Return the sentence after ``Expected:`` in the header of a spec.

    If the header has no ``Expected:``, return its first sentence.
    """
    comment = " ".join(line[1:].strip() for line in text.splitlines() if line.startswith("#"))
    expected = comment.partition("Expected: ")[2] or comment
    return expected.split(". ")[0].rstrip(".")
