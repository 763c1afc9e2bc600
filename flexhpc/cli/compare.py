"""Command ``compare``: show ratios of EMCs with their intervals and verdicts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from flexhpc.cli import options
from flexhpc.errors import InputError

if TYPE_CHECKING:
    from flexhpc.config.sections.compare import Compare
    from flexhpc.store.status import PointStatus


def compare(
    runs: options.RunList,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="Key whose values are compared, or `run` to compare runs. By default, the "
            "comparisons in the spec are shown. If the spec has none, a comparison is suggested.",
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            help="Value with which the other values are compared; by default the first value.",
        ),
    ] = None,
    within: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            help="Compare separately for each value of this key. Repeat the option for several "
            "keys. The default is all swept data keys.",
        ),
    ] = None,
    slopes: Annotated[
        bool,
        typer.Option(
            "--slopes",
            help="For each value of the key, fit EMC = c P^slope, where P is the parameter count.",
        ),
    ] = False,
    samples: Annotated[
        float | None,
        typer.Option(
            min=1,
            help="Like --slopes; also predict the parameter count at which the EMC has this value.",
        ),
    ] = None,
    decide: Annotated[
        bool,
        typer.Option(
            "--decide",
            help="Apply the rule of compare.decide to the stored training runs, and show the "
            "verdicts.",
        ),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Compare the EMCs for the values of a key: show ratios, intervals and verdicts.

    Two points that differ only in this key form a pair. The ratio of their EMCs is averaged over
    all pairs, such as one pair for each seed and network size.
    """  # fmt: skip
    from flexhpc.analysis.comparison import compare_points
    from flexhpc.analysis.effect import grouping_keys
    from flexhpc.analysis.figures.layout import without_size_and_seed_keys
    from flexhpc.analysis.scaling_law import power_laws
    from flexhpc.analysis.tables import make_console, print_effects, print_laws
    from flexhpc.config.sections.compare import Decide
    from flexhpc.store.status import read_runs

    read = read_runs(runs)
    statuses = [status for _, _, points in read for status in points]
    spec_comparisons = [compare for _, sweep, _ in read for compare in sweep.compare]
    with_slopes = slopes or samples is not None
    comparisons = _choose_comparisons(
        by, baseline, within, statuses, spec_comparisons, required=not with_slopes
    )
    if with_slopes:
        keys = dict.fromkeys(k for c in comparisons for k in (*grouping_keys(statuses, c), c.by))
        laws = power_laws(statuses, without_size_and_seed_keys(list(keys)))
        if as_json:
            typer.echo(json.dumps([law.as_row(samples) for law in laws], indent=1))
        elif laws:
            print_laws(laws, make_console(), samples)
        else:
            typer.echo("no slope can be fitted: this requires EMCs at three or more network sizes")
        return
    if decide:
        settings = {"decide": Decide()}
        comparisons = [c if c.decide else c.model_copy(update=settings) for c in comparisons]
    compared = compare_points(statuses, comparisons)
    if as_json:
        typer.echo(json.dumps([effect.as_row() for effect in compared.effects], indent=1))
    elif compared.effects:
        print_effects(compared.effects, make_console())
        for decision in compared.decisions:
            typer.echo(decision.text)
    else:
        typer.echo(
            "nothing to compare yet: this needs an EMC for the baseline and for at least one other "
            "value"
        )


def _choose_comparisons(
    by: str | None, baseline: str | None, within: list[str] | None,
    statuses: list[PointStatus], spec_comparisons: list[Compare], *, required: bool,
) -> list[Compare]:  # fmt: skip
    """Return the comparisons that the options request.

    Without ``--by``, return the comparisons in the specs. If there are none, suggest a comparison.
    ``--baseline`` and ``--within`` are applied to all returned comparisons.

    Raises:
        InputError: ``required`` is True, but no comparison is requested and none is suggested.
    """
    from flexhpc.analysis.comparison import suggested_comparison
    from flexhpc.analysis.grouping import swept_keys
    from flexhpc.config.sections.compare import Compare

    changes = {key: value for key, value in (("baseline", baseline), ("within", within)) if value}
    default = None if by is not None or spec_comparisons else suggested_comparison(statuses)
    settings = next((compare.decide for compare in spec_comparisons if compare.by == by), None)
    by_key = [Compare(by=by, decide=settings)] if by is not None else None
    comparisons = by_key or ([default] if default else spec_comparisons)
    if not comparisons and required:
        keys = ", ".join(swept_keys(statuses)) or "none"
        raise InputError(f"--by KEY: is required; swept keys: {keys}")
    changed = [compare.model_copy(update=changes) for compare in comparisons]
    return list({compare.model_dump_json(): compare for compare in changed}.values())
