"""Commands ``specs``, for the specs that come with flexhpc, and ``schema``, for editors."""

from __future__ import annotations

import json
import re
from typing import Annotated

import typer

from flexhpc.errors import InputError
from flexhpc.shipped import folder, names


def specs(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="One to print.")] = None,
) -> None:
    """List the specs that come with flexhpc, or print one: flexhpc specs NAME > mine.yaml."""
    shipped = names("specs")
    if name is None:
        for one in shipped:
            typer.echo(f"{one:24} {_expected((folder('specs') / f'{one}.yaml').read_text())}")
        return
    if name not in shipped:
        raise InputError(f"{name}: no such spec; there are {', '.join(shipped)}")
    typer.echo(_without_make((folder("specs") / f"{name}.yaml").read_text()), nl=False)


def schema() -> None:
    """Print a JSON schema of sweep specs, for editors."""
    from flexhpc.config.json_schema import sweep_schema

    typer.echo(json.dumps(sweep_schema(), indent=1))


def _without_make(text: str) -> str:
    """Replace the ``make`` command in the header of a spec by the ``flexhpc`` command."""

    def command(found: re.Match[str]) -> str:
        sets = re.sub(r"[^\s#]+=\S+", lambda one: f"--set '{one[0]}'", found["sets"] or "")
        return f"flexhpc sweep {found['name']} {sets}".rstrip()

    pattern = r"make sweep SPEC=sweeps/(?P<name>\S+)\.yaml(?: SET=\"(?P<sets>[^\"]*)\")?"
    return re.sub(pattern, command, text)


def _expected(text: str) -> str:
    """Return the first sentence after ``Expected:`` in the header of a spec, or of the header."""
    comment = " ".join(line[1:].strip() for line in text.splitlines() if line.startswith("#"))
    said = comment.partition("Expected: ")[2] or comment
    return said.split(". ")[0].rstrip(".")
