"""Arguments and options shared by several commands."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flexhpc.errors import InputError
from flexhpc.shipped import resolve_path

FAILED, WRONG_INPUT, INTERRUPTED = 1, 2, 130
"""Exit statuses of errors."""

if TYPE_CHECKING:
    from flexhpc.config.sections.training import Procedure

Spec = Annotated[
    Path,
    typer.Argument(
        metavar="SPEC",
        help="A sweep spec (YAML file), or the name of a shipped spec (see `flexhpc specs`).",
        parser=lambda text: resolve_path("specs", Path(text)),
    ),
]


def find_run_folder(text: str) -> Path:
    """Find a run folder by its path, or by its name in the folder ``runs``.

    Called while options are parsed, so that a wrong name is reported before slow imports.

    Raises:
        InputError: the run folder does not exist.
    """
    for path in (Path(text), Path("runs") / text):
        if (path / "sweep.yaml").is_file():
            return path
    raise InputError(
        f"{text}: not a run folder (it has no sweep.yaml); pass the path of a run folder, or its "
        "name in runs/"
    )


Run = Annotated[
    Path,
    typer.Argument(
        metavar="RUN", help="A run folder, or its name in runs/.", parser=find_run_folder
    ),
]
RunList = Annotated[
    list[Path],
    typer.Argument(metavar="RUN...", help="One or several runs.", parser=find_run_folder),
]
RunsFolder = Annotated[Path, typer.Option("--runs", help="Folder that contains the run folders.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a key of the spec. Repeat the option to change several keys.",
    ),
]
Profile = Annotated[
    Path | None,
    typer.Option(
        "--profile",
        metavar="PROFILE",
        help="A profile (YAML file that sets where and how a sweep runs), or the name of a shipped "
        "profile.",
        parser=lambda text: resolve_path("profiles", Path(text)),
    ),
]
Eps = Annotated[
    list[float] | None,
    typer.Option(
        "--eps",
        metavar="ERROR",
        help="Also estimate the EMC at this training error from the stored probes. Repeat the "
        "option for several training errors.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def validated_training_errors(eps: list[float] | None) -> list[float]:
    """Return the values of ``--eps`` after validation.

    Raises:
        InputError: a value is not between 0 and 1.
    """
    if invalid := [error for error in eps or () if not 0 < error < 1]:
        raise InputError(
            f"--eps {error:g}: must be between 0 and 1; 0.1 means that one sample in ten is missed"
            for error in invalid
        )
    return list(eps or ())


def check_budgets(budgets: list[float], procedures: Sequence[Procedure]) -> None:
    """Validate the values of ``--budget``.

    Each value must be above 0 and at most twice the largest budget of the points whose EMC can be
    estimated at other budgets.

    Args:
        budgets: the values of ``--budget``.
        procedures: the ``training`` section of each point.

    Raises:
        InputError: a value is out of range, or no EMC can be estimated at other budgets.
    """
    from flexhpc.search.budget_curve import MAX_FACTOR, NO_OTHER_BUDGET

    known = [
        (
            t.budget[0],
            t.budget[1] << (t.doubling_settings.max_doublings if t.doubling_settings else 0),
        )
        for t in procedures
        if t.determines_other_budgets and t.budget
    ]
    if budgets and not known:
        raise InputError(f"--budget: {NO_OTHER_BUDGET} (see docs/reading.md)")
    key, largest = max(known, key=lambda budget: budget[1], default=("", 0))
    if invalid := [value for value in budgets if not 0 < value <= MAX_FACTOR * largest]:
        raise InputError(
            f"--budget {value:g}: must be above 0 and at most {MAX_FACTOR * largest:g}, which is "
            f"{MAX_FACTOR:g} times the largest budget ({largest} {key})"
            for value in invalid
        )


Format = Literal["table", "csv", "json", "parquet"]
ResultsFormat = Literal["table", "csv", "json", "parquet", "latex"]
TableFormat = Annotated[Format, typer.Option("--format", help="Output format.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.")]


def write_output(content: bytes, output_format: str, output: Path | None) -> None:
    """Write an encoded table to the file ``output`` or, if it is None, to stdout.

    Raises:
        InputError: the file cannot be written, or Parquet would be printed to a terminal.
    """
    if output is not None:
        from flexhpc.atomic import write_atomic

        try:
            write_atomic(output.resolve(), content)
        except OSError as error:
            raise InputError(f"{output}: cannot be written: {error.strerror}") from None
    elif output_format == "parquet" and sys.stdout.isatty():
        raise InputError(
            "Parquet cannot be printed to a terminal; use --output FILE, or redirect stdout"
        )
    else:
        sys.stdout.buffer.write(content)
