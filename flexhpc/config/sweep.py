"""A sweep spec: fixed values, the axes that are swept, and the points to which they expand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from flexhpc.config.checks import (
    check_evaluation,
    check_record,
    check_together,
    check_tuned,
    generalizes,
)
from flexhpc.config.entry import Entry, Frozen, arms_of, entry
from flexhpc.config.identity import digest, point_json
from flexhpc.config.nested import Keys, put, taken, without_none
from flexhpc.config.point import Point
from flexhpc.config.resolve import spelled_out, variant_of, with_variant
from flexhpc.config.sections.compare import Compare
from flexhpc.config.sections.custom import CustomCode
from flexhpc.config.sections.data import Data
from flexhpc.config.sections.evaluate import Evaluate
from flexhpc.config.sections.record import Record
from flexhpc.config.sections.training import Procedure
from flexhpc.config.variants import KEYS, OTHER_KEYS
from flexhpc.custom.code import Code

SECTION_NAMES = tuple(KEYS)


@dataclass(frozen=True, kw_only=True)
class Axis:
    """Keys that are swept together: a key of ``grid``, or an entry of ``zip``.

    Attributes:
        keys: the dotted paths that the axis sets, split at the dots.
        values: one tuple per position, with a value for each key.
        lines: line number of every value in the file.
        zipped: whether the axis is an entry of ``zip``.
    """

    keys: tuple[Keys, ...]
    values: tuple[tuple[Any, ...], ...]
    lines: tuple[tuple[int, ...], ...]
    zipped: bool


Problems = dict[tuple[int, str, str], None]
"""(line, key, problem) without duplicates, in the order of detection."""


@dataclass(kw_only=True)
class Sweep:
    """A parsed sweep spec. ``points()`` expands it; ``problems`` contains its errors.

    Attributes:
        name: name of the run folder and the MLflow experiment.
        fixed: section -> key -> value.
        fixed_lines: line number of each fixed key.
        axes: the axes in the order of the file; the last one varies fastest.
        evaluate: what is measured in addition to the EMC.
        evaluate_lines: line number of each key of ``evaluate``.
        record: additional measurements stored with every probe.
        record_lines: line number of each key of ``record``.
        compare: which EMCs are compared.
        compare_lines: line number of each key of ``compare``.
        frozen: the defaults stored in a frozen spec, which later versions do not change; None for a
            spec that a user wrote.
        checked: whether invalid combinations of keys are errors. False for an unmodified frozen
            spec, because a later version may reject more combinations.
        beside: folder of the spec, which is searched for user code.
        code: user code named by the points, filled while they are expanded: name -> location and
            version.
    """

    name: str
    seed: int
    seed_line: int = 1
    fixed: dict[str, dict[str, Any]]
    fixed_lines: dict[Keys, int]
    axes: list[Axis]
    evaluate: Evaluate = field(default_factory=Evaluate)
    evaluate_lines: dict[Keys, int] = field(default_factory=dict)
    record: Record = field(default_factory=Record)
    record_lines: dict[Keys, int] = field(default_factory=dict)
    compare: list[Compare] = field(default_factory=list)
    compare_lines: dict[Keys, int] = field(default_factory=dict)
    frozen: Frozen | None = None
    checked: bool = True
    beside: Path | None = None
    code: dict[str, Code] = field(default_factory=dict)
    problems: Problems = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Number of points."""
        return math.prod(len(axis.values) for axis in self.axes)

    def points(self) -> Iterator[Point]:
        """Expand to points, in order. Invalid combinations are omitted and added to ``problems``.

        Sections are validated once per distinct combination of the axes that affect them, so the
        cost per point is a few look-ups and one hash.
        """
        self._check_covered()
        touching = {s: self._touching(s) for s in SECTION_NAMES}
        seed_axes = self._touching("seed")
        sections: dict[tuple[Any, ...], Entry | None] = {}
        together: dict[tuple[int, ...], bool] = {}
        paths = [
            (a, k, ".".join(key))
            for a, axis in enumerate(self.axes)
            for k, key in enumerate(axis.keys)
        ]
        spans = [range(len(axis.values)) for axis in self.axes]
        for index, at in enumerate(itertools.product(*spans)):
            entries: list[Entry | None] = []
            for name in SECTION_NAMES:
                key = (name, *(at[a] for a in touching[name]))
                if key not in sections:
                    sections[key] = self._entry(name, at)
                entries.append(sections[key])
            seed = self._seed(at, seed_axes)
            if entries[0] is None or entries[1] is None:
                continue
            combined = tuple(map(id, entries))
            if combined not in together:
                together[combined] = self._go_together(entries, at)
            if not together[combined] or entries[2] is None or entries[3] is None or seed is None:
                continue
            data, model, training, search = (cast(Any, entry).section for entry in entries)
            data_json, model_json, training_json, search_json = (
                cast(Any, entry).text for entry in entries
            )
            text = point_json(data_json, model_json, search_json, seed, training_json)
            yield Point(
                index=index, id=digest(text), canonical=text, data=data, model=model,
                training=training, search=search, seed=seed, arms=arms_of(entries[1], entries[2]),
                evaluate=self.evaluate if self.evaluate.wanted and generalizes(data) else None,
                record=self.record,
                swept={path: self.axes[a].values[at[a]][k] for a, k, path in paths},
            )  # fmt: skip

    def _check_covered(self) -> None:
        """Note errors in fixed values that no point uses because their key is swept."""
        first = (0,) * len(self.axes)
        for section, *path in (keys for axis in self.axes for keys in axis.keys if len(keys) > 1):
            covered = taken(self.fixed.get(section, {}), tuple(path))
            if covered is None or not self.checked:
                continue
            values, _ = self._values(section, first)

            def report(at: Keys, what: str, section: str = section, path: Any = path) -> None:
                if list(at[: len(path)]) == path and not what.startswith("has no effect"):
                    self._note((section, *at), what, self.fixed_lines)

            with_it = put(values, tuple(path), covered)
            entry(section, with_it, Frozen(), report, checked=True, beside=self.beside)

    def _touching(self, section: str) -> list[int]:
        return [a for a, axis in enumerate(self.axes) if any(k[0] == section for k in axis.keys)]

    def _values(self, section: str, at: tuple[int, ...]) -> tuple[dict[str, Any], dict[Keys, int]]:
        """Return the values of a section as the user wrote them, and the line number of each
        key."""
        values: dict[str, Any] = dict(self.fixed.get(section, {}))
        lines = {k: n for k, n in self.fixed_lines.items() if k[:1] == (section,)}
        for axis, i in zip(self.axes, at, strict=True):
            for k, keys in enumerate(axis.keys):
                if keys[0] != section:
                    continue
                value, lines[keys] = axis.values[i][k], axis.lines[i][k]
                if len(keys) == 1:
                    values = dict(value) if isinstance(value, dict) else {"": value}
                else:
                    values = put(values, keys[1:], value)
        if section == "model" and not values and OTHER_KEYS["training"] in self._training(at):
            values = {"family": "none"}
        frozen = self.frozen or Frozen()
        values = with_variant(section, without_none(values), frozen.variants)
        return spelled_out(section, values), lines

    def _training(self, at: tuple[int, ...]) -> dict[str, Any]:
        return self._values("training", at)[0]

    def _entry(self, name: str, at: tuple[int, ...]) -> Entry | None:
        values, lines = self._values(name, at)

        def report(path: Keys, what: str) -> None:
            self._note((name, *path), what, lines)

        found = entry(
            name, values, self.frozen or Frozen(), report, checked=self.checked, beside=self.beside
        )
        if found is not None and isinstance(found.section, CustomCode):
            _, variant = variant_of(name, values)
            if (place := found.section.place).hash or variant not in self.code:
                self.code[variant] = place  # an entry without a hash may be replaced
        return found

    def _go_together(self, entries: list[Entry | None], at: tuple[int, ...]) -> bool:
        """Check the sections of a point against each other; note every error."""
        data, model, training, search = (cast(Any, one and one.section) for one in entries)
        report = self._reporter(at)
        fine = check_together(data, model, training, report)
        fine = fine and self._can_evaluate(data, training) and self._can_record(data, training)
        keys = [
            (name, *path)
            for name, one in zip(SECTION_NAMES, entries, strict=True)
            for path in (one.tried if one else ())
        ]
        return check_tuned(search, keys, report) and fine

    def _seed(self, at: tuple[int, ...], seed_axes: list[int]) -> int | None:
        seed, line = self.seed, self.seed_line
        for a in seed_axes:
            k = self.axes[a].keys.index(("seed",))
            seed, line = self.axes[a].values[at[a]][k], self.axes[a].lines[at[a]][k]
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
            what = f"must be a whole number from 0 to 2^63 - 1, not {seed!r}"
            self._note(("seed",), what, {("seed",): line})
            return None
        return seed

    def _can_evaluate(self, data: Data, training: Procedure | None) -> bool:
        clashes = [*check_evaluation(self.evaluate, data, training)]
        for key, what in clashes:
            self._note(("evaluate", key), what, self.evaluate_lines)
        return not clashes

    def _can_record(self, data: Data, training: Procedure | None) -> bool:
        clashes = [*check_record(self.record, data, training)]
        for key, what in clashes:
            self._note(("record", key), what, self.record_lines)
        return not clashes

    def _reporter(self, at: tuple[int, ...]) -> Any:
        def report(keys: Keys, what: str) -> None:
            _, lines = self._values(keys[0], at)
            self._note(keys, what, lines)

        return report

    def _note(self, keys: Keys, what: str, lines: dict[Keys, int]) -> None:
        place = keys
        while place and place not in lines:
            place = place[:-1]
        self.problems[(lines.get(place, self.fixed_lines.get((), 1)), ".".join(keys), what)] = None
