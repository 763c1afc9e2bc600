"""One section of a point, for every combination of its tuned values."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from flexhpc.config.identity import canonical, plain
from flexhpc.config.nested import Keys, put
from flexhpc.config.resolve import (
    Report,
    complete,
    resolve,
    show,
    variant_class,
    variant_of,
)
from flexhpc.config.sections.base import Section
from flexhpc.config.sections.custom import CustomCode
from flexhpc.config.sections.model import Model
from flexhpc.config.sections.training import Procedure
from flexhpc.config.tune import MOST_ARMS, Arm, combinations, ladder, nuisances, taken_out
from flexhpc.custom.code import NAME, Code, find
from flexhpc.errors import one_line


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """The defaults that a frozen spec was written with.

    Attributes:
        variants: section -> variant if the spec does not give one.
        defaults: section -> variant -> key -> value.
        code: import path of user code -> its location and version.
    """

    variants: dict[str, str] = field(default_factory=dict)
    defaults: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    code: dict[str, Code] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A section of a point and its tuned keys.

    Attributes:
        section: the section with the first value of every tuned key.
        text: its canonical JSON.
        tried: path of a tuned key inside the section -> the values to try.
        arms: the section for every combination of these values, in the order of
            :func:`combinations`.
    """

    section: Section
    text: str
    tried: dict[Keys, list[float]]
    arms: tuple[tuple[dict[Keys, float], Section], ...]


def entry(
    name: str,
    values: dict[str, Any],
    frozen: Frozen,
    report: Report,
    *,
    checked: bool,
    beside: Path | None = None,
) -> Entry | None:
    """Build a section from the values of the user; report errors and return None if there are
    any."""
    given, asked = taken_out(values)
    tried = _tried(name, given, asked, report)
    if tried is None:
        return None
    key, variant = variant_of(name, given)
    cls = variant_class(name, variant)
    defaults = frozen.defaults.get(name, {}).get(str(variant), {})
    missing = False
    if cls is not None and issubclass(cls, CustomCode):
        placed = _placed(str(variant), given.get("version"), frozen, beside)
        if missing := isinstance(placed, str):
            report((key,), placed)
        else:
            defaults = defaults | placed
    arms = []
    for values_of in combinations(tried):
        chosen = given
        for path, value in values_of.items():
            chosen = put(chosen, path, value)
        section = resolve(
            name,
            complete(name, chosen, defaults),
            report,
            given=complete(name, chosen, {}) if checked else None,
        )
        if section is None:
            return None
        arms.append((values_of, section))
    if missing:
        return None
    first = arms[0][1]
    content = plain(first)
    for path, several in tried.items():
        content = put(content, path, {"tune": several})
    return Entry(section=first, text=canonical(content), tried=tried, arms=tuple(arms))


def _placed(
    name: str, version: object, frozen: Frozen, beside: Path | None
) -> dict[str, Any] | str:
    """Return the location and hash of user code, or an error message if it is not found."""
    if re.match(NAME, name) is None:
        return {}  # the invalid name is reported with all other errors of the section
    try:
        code = frozen.code.get(name) or find(name, beside)
    except (LookupError, OSError) as error:
        return f"{name}: {one_line(error)}"
    return {"folder": code.folder, "code": code.hash if version is None else None}


def _tried(
    name: str, given: dict[str, Any], asked: dict[Keys, Any], report: Report
) -> dict[Keys, list[float]] | None:
    """Return the values of each tuned key of a section; report errors and return None if one is
    invalid."""
    cls = variant_class(name, variant_of(name, given)[1])
    if not asked or cls is None:
        return {}
    may, tried = nuisances(cls), {}
    for path, what in asked.items():
        if path not in may:
            some = ", ".join(f"{name}.{'.'.join(key)}" for key in may) or "no key of it"
            report(path, f"cannot be tuned, as {show(what)} asks; in {name}: {some}")
            continue
        values = ladder(what, may[path])
        if isinstance(values, str):
            report(path, values)
            continue
        tried[path] = values
    if len(tried) < len(asked):
        return None
    if (count := math.prod(map(len, tried.values()))) > MOST_ARMS:
        report(next(iter(tried)), f"{count} combinations are tuned; at most {MOST_ARMS}")
        return None
    return tried


def arms_of(model: Entry, training: Entry) -> tuple[Arm, ...]:
    """Return every combination of the tuned values of two sections."""
    ends = {
        (name, *path): (values[0], values[-1])
        for name, section in (("model", model), ("training", training))
        for path, values in section.tried.items()
    }
    arms = []
    for (of_model, one), (of_training, other) in itertools.product(model.arms, training.arms):
        values = {("model", *path): value for path, value in of_model.items()}
        values |= {("training", *path): value for path, value in of_training.items()}
        arms.append(
            Arm(
                values={".".join(path): value for path, value in values.items()},
                edges=tuple(".".join(p) for p, v in values.items() if v in ends[p]),
                model=cast(Model, one),
                training=cast(Procedure, other),
            )
        )
    return tuple(arms)
