"""Comparisons and power laws as rows and as terminal tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from flexhpc.analysis.comparison import Effect
from flexhpc.analysis.scaling_law import PowerLaw
from flexhpc.analysis.whole_columns import Column, table_of

Row = dict[str, Any]
_MOST_SENTENCES = 4


def effect_row(effect: Effect) -> Row:
    """Return a comparison as plain values; open ends and unknown values are None."""
    return {
        "by": effect.by, "value": effect.value, "baseline": effect.baseline, **effect.within,
        "ratio": _known(effect.ratio), "ratio_lo": effect.low, "ratio_hi": effect.high,
        "level": effect.level, "smallest_size_ratio": _known(effect.least),
        "largest_size_ratio": _known(effect.most), "chance_larger": effect.chance,
        "chance_same": effect.same, "verdict": effect.verdict, "pairs": effect.pairs,
        "pairs_of_bounds": effect.silent, "unpaired": effect.alone, "scatter": effect.scatter,
        "more_pairs": effect.more,
    }  # fmt: skip


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def law_row(law: PowerLaw, samples: float | None = None) -> Row:
    """Return a power law as plain values.

    Args:
        law: the power law; samples: an EMC (samples) for which to add the required parameters.
    """
    row: Row = {
        **law.name, "slope": law.slope, "slope_lo": law.low, "slope_hi": law.high,
        "level": law.level, "points": law.points, "bounds": law.bounds, "scatter": law.scatter,
    }  # fmt: skip
    if samples:
        low, middle, high = law.parameters_for(samples) or (None, None, None)
        row |= {"parameters": middle, "parameters_lo": low, "parameters_hi": high}
    return row


def pairs_text(effect: Effect) -> str:
    """Format the number of pairs: ``15``, ``15 (4 of bounds)``, ``2 (3 unpaired)``."""
    notes = []
    if effect.silent:
        notes.append(f"{effect.silent} of bounds")
    if effect.alone:
        notes.append(f"{effect.alone} unpaired")
    return f"{effect.pairs} ({', '.join(notes)})" if notes else str(effect.pairs)


def _part(effect: Effect) -> str:
    """Format a verdict, with the ratios by size if these lie on both sides of 1."""
    if effect.verdict in ("larger", "smaller") and effect.turns:
        return f"{effect.value} {effect.verdict} on average ({effect.ratio_text}), {effect.turns}"
    return f"{effect.value} {effect.verdict} ({effect.ratio_text})"


def verdict_sentences(found: Sequence[Effect]) -> list[str]:
    """Return one sentence on the verdicts per grouping and baseline; none without a verdict."""
    groups: dict[tuple[str, str], list[Effect]] = {}
    for effect in found:
        groups.setdefault((effect.within_text, effect.baseline), []).append(effect)
    said = []
    for (within, baseline), some in list(groups.items())[:_MOST_SENTENCES]:
        known = [one for one in some if one.verdict != "not decided"]
        parts = [_part(one) for one in known]
        open_ = len(some) - len(known)
        if known and open_:
            parts.append(f"{open_} not decided")
        if parts:
            start = f"{within}: against" if within else "Against"
            said.append(f"{start} {baseline}: {'; '.join(parts)}.")
    return said


def print_effects(found: Sequence[Effect], console: Console) -> None:
    """Print comparisons, one table per compared key."""
    for by in dict.fromkeys(effect.by for effect in found):
        some = [effect for effect in found if effect.by == by]
        kept = list(dict.fromkeys(key for effect in some for key in effect.within))
        columns = [
            *(Column(name=k, cells=[e.within.get(k, "") for e in some], least=8) for k in kept),
            Column(name=by, cells=[e.value for e in some], least=12),
            Column(name="against", cells=[e.baseline for e in some], goes=2, least=10),
            Column(name="EMC ratio", cells=[e.ratio_text for e in some], right=True),
            Column(name="by size", cells=[e.sizes_text for e in some], right=True, goes=1),
            Column(name="P(larger)", cells=[e.chance_text for e in some], right=True, goes=3),
            Column(name="pairs", cells=[pairs_text(e) for e in some], right=True, goes=0),
            Column(name="verdict", cells=[e.verdict_text for e in some], least=14),
        ]
        console.print(table_of(columns, console.width))


def print_laws(laws: Sequence[PowerLaw], console: Console, samples: float | None = None) -> None:
    """Print power laws.

    Args:
        laws: the power laws; console: the output.
        samples: an EMC (samples) for which to add the required parameters.
    """
    kept = list(dict.fromkeys(key for law in laws for key in law.name))
    bounds = [f" ({law.bounds} bounds)" if law.bounds else "" for law in laws]
    columns = [
        *(Column(name=k, cells=[law.name.get(k, "") for law in laws], least=8) for k in kept),
        Column(name="EMC ~ parameters ^", cells=[law.slope_text for law in laws], right=True),
        Column(
            name="points", right=True, goes=0,
            cells=[f"{law.points}{more}" for law, more in zip(laws, bounds, strict=True)],
        ),
    ]  # fmt: skip
    if samples:
        texts = []
        for law in laws:
            needed = law.parameters_for(samples)
            texts.append(
                "not known" if needed is None
                else f"{needed[1]:,.0f} [{needed[0]:,.0f}, {needed[2]:,.0f}]"
            )  # fmt: skip
        columns.append(Column(name=f"parameters for {samples:g}", cells=texts, right=True))
    console.print(table_of(columns, console.width))
