"""Check that the comparisons of a spec refer to swept keys and their values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flexhpc.config.point import plain_text
from flexhpc.config.resolve import closest
from flexhpc.config.sweep import Sweep


def check_compare(sweep: Sweep) -> Iterator[tuple[int, str, str]]:
    """Yield (line, key, problem) of each comparison; nothing for an unmodified frozen spec."""
    if not sweep.checked:
        return
    values: dict[str, list[Any]] = {}
    for axis in sweep.axes:
        for place, keys in enumerate(axis.keys):
            values[".".join(keys)] = [value[place] for value in axis.values]
    names = ", ".join(values) or "none"
    for asked in sweep.compare:
        for key, named in (("by", [asked.by]), ("within", asked.within or [])):
            for name in named:
                if name not in values:
                    what = f"{name} is not swept; swept are {names}{closest(name, list(values))}"
                    yield _line(sweep, key), f"compare.{key}", what
        if asked.by in (asked.within or []):
            what = f"{asked.by} is what is compared; leave it out"
            yield _line(sweep, "within"), "compare.within", what
        if asked.by not in values:
            continue
        there = list(dict.fromkeys(plain_text(value) for value in values[asked.by]))
        if len(there) < 2:
            what = f"{asked.by} has one value only, so there is nothing to compare"
            yield _line(sweep, "by"), "compare.by", what
        if asked.baseline is not None and plain_text(asked.baseline) not in there:
            what = f"{plain_text(asked.baseline)} is none of {', '.join(there)}"
            yield _line(sweep, "baseline"), "compare.baseline", what


def _line(sweep: Sweep, key: str) -> int:
    return sweep.compare_lines.get(("compare", key), 1)
