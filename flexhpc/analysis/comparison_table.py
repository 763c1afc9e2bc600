"""Comparisons and power laws as rows, and as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from flexhpc.analysis.comparison import Effect
from flexhpc.analysis.scaling_law import PowerLaw

Row = dict[str, Any]


def effect_row(effect: Effect) -> Row:
    """Return a comparison as plain values; what is open or not known is None."""
    return {
        "by": effect.by, "value": effect.value, "baseline": effect.baseline,
        **effect.within,
        "ratio": None if effect.low is None and effect.high is None else effect.ratio,
        "ratio_lo": effect.low, "ratio_hi": effect.high, "level": effect.level,
        "chance_larger": effect.chance, "chance_same": effect.same, "verdict": effect.verdict,
        "pairs": effect.pairs, "pairs_of_bounds": effect.silent, "unpaired": effect.alone,
        "scatter": effect.scatter, "more_pairs": effect.more,
    }  # fmt: skip


def law_row(law: PowerLaw) -> Row:
    """Return a power law as plain values."""
    return {
        **law.name, "slope": law.slope, "slope_lo": law.low, "slope_hi": law.high,
        "level": law.level, "points": law.points, "bounds": law.bounds, "scatter": law.scatter,
    }  # fmt: skip


def pairs_text(effect: Effect) -> str:
    """Return how many pairs a ratio rests on: ``15``, ``15 (4 say nothing)``, ``2 (3 alone)``."""
    notes = []
    if effect.silent:
        notes.append(f"{effect.silent} of bounds")
    if effect.alone:
        notes.append(f"{effect.alone} unpaired")
    return f"{effect.pairs} ({', '.join(notes)})" if notes else str(effect.pairs)


def print_effects(found: Sequence[Effect], console: Console) -> None:
    """Print comparisons, those of one key together."""
    for by in dict.fromkeys(effect.by for effect in found):
        some = [effect for effect in found if effect.by == by]
        table = Table(box=None, pad_edge=False, header_style="bold")
        kept = list(dict.fromkeys(key for effect in some for key in effect.within))
        for name in (*kept, by, "against"):
            table.add_column(name, no_wrap=True)
        for name in ("EMC ratio", "P(larger)", "pairs"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("verdict", no_wrap=True)
        for effect in some:
            table.add_row(
                *(effect.within[key] for key in kept), effect.value, effect.baseline,
                effect.ratio_text, f"{effect.chance:.3g}", pairs_text(effect), effect.said,
            )  # fmt: skip
        console.print(table)


def print_laws(laws: Sequence[PowerLaw], console: Console, n: float | None = None) -> None:
    """Print power laws, and with ``n`` the parameters that so many samples need."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    kept = list(dict.fromkeys(key for law in laws for key in law.name))
    for name in kept:
        table.add_column(name, no_wrap=True)
    for name in ("EMC ~ parameters ^", "points", *([f"parameters for {n:g}"] if n else [])):
        table.add_column(name, justify="right", no_wrap=True)
    for law in laws:
        bounds = f" ({law.bounds} bounds)" if law.bounds else ""
        cells = [*law.name.values(), law.slope_text, f"{law.points}{bounds}"]
        if n and law.low is not None and law.high is not None:
            low, middle, high = law.parameters_for(n)
            cells.append(f"{middle:,.0f} [{low:,.0f}, {high:,.0f}]")
        table.add_row(*cells)
    console.print(table)
