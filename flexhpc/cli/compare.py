"""Command ``compare``: ratios of EMCs with intervals and verdicts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from flexhpc.cli.options import Json, RunsGiven
from flexhpc.errors import InputError

if TYPE_CHECKING:
    from flexhpc.config.sections.compare import Compare
    from flexhpc.config.sweep import Sweep
    from flexhpc.store.status import PointStatus


def compare(
    runs: RunsGiven,
    by: Annotated[
        str | None,
        typer.Option(
            "--by",
            metavar="KEY",
            help="The key whose values are compared, or `run`; by default what the spec says.",
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option("--baseline", help="Compare with this one; by default the first."),
    ] = None,
    within: Annotated[
        list[str] | None,
        typer.Option(
            "--within",
            metavar="KEY",
            help="Compare apart for each value of this key; by default for those of data.",
        ),
    ] = None,
    slopes: Annotated[
        bool, typer.Option("--slopes", help="Show how EMC grows with parameters, for each value.")
    ] = False,
    samples: Annotated[
        float | None,
        typer.Option("--samples", min=1, help="With --slopes: parameters for so many samples."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare EMCs between the values of a key: ratio, interval, verdict.

    Points that differ only in this key form a pair; ratios are averaged over pairs, which differ
    in seeds and sizes.
    """  # fmt: skip
    from flexhpc.analysis.comparison import decided, effects, within_of
    from flexhpc.analysis.comparison_table import effect_row, law_row, print_effects, print_laws
    from flexhpc.analysis.figures.layout import SIZES
    from flexhpc.analysis.scaling_law import power_laws
    from flexhpc.analysis.tables import make_console
    from flexhpc.store.status import read_runs

    read = read_runs(runs)
    statuses = [status for _, _, some in read for status in some]
    sweeps = [sweep for _, sweep, _ in read]
    if slopes or samples is not None:
        asked = _asked(by, baseline, within, statuses, sweeps, needed=False)
        kept = dict.fromkeys(key for one in asked for key in (*within_of(statuses, one), one.by))
        own = [key for key in kept if key.split(".")[-1] not in SIZES]
        laws = power_laws(statuses, own)
        if as_json:
            typer.echo(json.dumps([law_row(law, samples) for law in laws], indent=1))
        elif laws:
            print_laws(laws, make_console(), samples)
        else:
            typer.echo("no exponent: that needs three sizes with an EMC")
        return
    asked = _asked(by, baseline, within, statuses, sweeps)
    found = decided([effect for one in asked for effect in effects(statuses, one)])
    if as_json:
        typer.echo(json.dumps([effect_row(effect) for effect in found], indent=1))
    elif found:
        print_effects(found, make_console())
    else:
        typer.echo("nothing to compare yet: no two values have an EMC")


def _asked(
    by: str | None, baseline: str | None, within: list[str] | None,
    statuses: list[PointStatus], sweeps: list[Sweep], *, needed: bool = True,
) -> list[Compare]:  # fmt: skip
    """Return the comparisons to make: from the options, else from the specs, else suggested ones.

    Raises:
        InputError: no key to compare is given, though it is needed.
    """
    from flexhpc.analysis.comparison import suggested
    from flexhpc.config.sections.compare import Compare

    given = {key: value for key, value in (("baseline", baseline), ("within", within)) if value}
    if by is not None:
        return [Compare(by=by).model_copy(update=given)]
    asked = [one for sweep in sweeps for one in sweep.compare]
    if not asked and (one := suggested(statuses)):
        asked = [one]
    if not asked and needed:
        keys = dict.fromkeys(key for status in statuses for key in status.point.swept)
        raise InputError(f"--by KEY: is needed; swept are {', '.join(keys) or 'no keys'}")
    listed = [one.model_copy(update=given) for one in asked]
    return list({one.model_dump_json(): one for one in listed}.values())
