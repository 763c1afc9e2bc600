"""The table of docs/recipe.md: a row per choice, a column per network and data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.recipe.choices import choice, network
from bench.recipe.factors import Factor, factor
from flexhpc.analysis.text import duration_text, emc_text
from flexhpc.store import PointRecord
from flexhpc.store.status import PointStatus

FAMILIES = {"mlp": "MLP", "cnn": "CNN", "vit": "ViT"}
SOURCES = {"digits": "digits", "fashion_mnist": "Fashion-MNIST"}


@dataclass(frozen=True, kw_only=True)
class Study:
    """The effect of every choice on the EMC of every network.

    Attributes:
        bases: base point of each network.
        factors: factor of each finished point, by choice and network.
        waiting: descriptions of the points that are not finished.
        measured: records of all finished points.
    """

    bases: dict[tuple[str, str], PointStatus] = field(default_factory=dict)
    factors: dict[str, dict[tuple[str, str], Factor]] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)
    measured: list[PointRecord] = field(default_factory=list)


def study(statuses: Sequence[PointStatus]) -> Study:
    """Compare every point with the first point of the same network and data set.

    Raises:
        ValueError: A point differs from its base in more than one choice.
    """
    results = Study()
    for status in statuses:
        key = network(status.point)
        base = results.bases.setdefault(key, status)
        label = "base" if status is base else choice(status.point, base.point)
        row = results.factors.setdefault(label, {}) if status is not base else {}
        if status.state != "done" or status.record is None:
            results.waiting.append(f"{' '.join(key)}: {label}")
            continue
        results.measured.append(status.record)
        if status is not base and base.state == "done":
            row[key] = factor(status, base)
    return results


def markdown(results: Study) -> str:
    """Return the table, with factors whose interval excludes 1 in bold, and the cost."""
    head = [f"{FAMILIES.get(f, f)}, {SOURCES.get(s, s)}" for f, s in results.bases]
    lines = [_row(["choice", *head]), _row(["---"] * (1 + len(head)))]
    emcs = [
        emc_text(base.estimate) if base.state == "done" else "" for base in results.bases.values()
    ]
    lines.append(_row(["none: EMC of the base", *emcs]))
    for label, factors in results.factors.items():
        lines.append(_row([label, *(_cell(factors.get(key)) for key in results.bases)]))
    return "\n".join([*lines, "", took(results)]) + "\n"


def took(results: Study) -> str:
    """Return a sentence with the number of training runs and their cost."""
    probes = [probe for record in results.measured for probe in record.probes]
    cells = [cell for factors in results.factors.values() for cell in factors.values()]
    return (
        f"{sum(cell.moved for cell in cells)} of {len(cells)} intervals exclude 1. "
        f"{len(results.measured)} points, {len(probes):,} training runs, "
        f"{sum(probe.cost for probe in probes) / 1e6:.0f} million sample passes, "
        f"{duration_text(sum(probe.seconds for probe in probes))} of training on one thread."
    )


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Factor | None) -> str:
    if cell is None:
        return ""
    return f"**{cell.text}**" if cell.moved else cell.text
