"""A sweep spec: fixed values, the axes that sweep over them, and the points they expand to."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from flexhpc.spec.checks import check_evaluation, check_together, generalizes
from flexhpc.spec.identity import canonical, digest, plain, point_json
from flexhpc.spec.resolve import complete, resolve, variant_of, with_variant
from flexhpc.spec.sections import SECTIONS, Data, Evaluate, Model, Search, Section, Training

Keys = tuple[str, ...]
SECTION_NAMES = tuple(SECTIONS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One fully resolved combination of a sweep spec; asks for one EMC.

    Attributes:
        index: position in the sweep, from 0.
        id: content hash of all that can change the result.
        canonical: the JSON text that was hashed.
        evaluate: how its model is trained to see whether it generalizes; None for not at all.
        swept: the values of the swept keys, by dotted path.
    """

    index: int
    id: str
    canonical: str
    data: Data
    model: Model
    training: Training
    search: Search
    seed: int
    evaluate: Evaluate | None
    swept: dict[str, Any]

    @property
    def label(self) -> str:
        """The swept values in short: ``random width=48``, for tables and run names.

        Text speaks for itself; the MLflow UI cuts names after some 15 characters.
        """
        return " ".join(short(key, value) for key, value in self.swept.items())

    @property
    def evaluation(self) -> dict[str, int] | None:
        """Which evaluation is wanted: see :attr:`Evaluate.asked`; None for none."""
        return None if self.evaluate is None else self.evaluate.asked


def short(key: str, value: Any) -> str:
    """Return a swept value in short; text speaks for itself, anything else is named."""
    if isinstance(value, dict):
        return " ".join(
            f"{inner}={v}" if "." in key and isinstance(v, str) else short(f"{key}.{inner}", v)
            for inner, v in value.items()
        )
    return value if isinstance(value, str) else f"{key.split('.')[-1]}={value}"


@dataclass(frozen=True, kw_only=True)
class Axis:
    """Keys that move together: a key of ``grid``, or an entry of ``zip``.

    Attributes:
        keys: the dotted paths that it sets, split at the dots.
        values: one tuple per position, with a value for each key.
        lines: the line of every value in the file.
        zipped: whether it is an entry of ``zip``.
    """

    keys: tuple[Keys, ...]
    values: tuple[tuple[Any, ...], ...]
    lines: tuple[tuple[int, ...], ...]
    zipped: bool


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """The defaults that a frozen spec was made with.

    Attributes:
        variants: section -> variant where the spec does not say.
        defaults: section -> variant -> key -> value.
    """

    variants: dict[str, str]
    defaults: dict[str, dict[str, dict[str, Any]]]


Problems = dict[tuple[int, str, str], None]
"""(line, key, what), in the order found, each once."""


@dataclass(kw_only=True)
class Sweep:
    """A parsed sweep spec. ``points()`` expands it; ``problems`` holds what is wrong with it.

    Attributes:
        name: names the run folder and the MLflow experiment.
        fixed: section -> key -> value.
        fixed_lines: line of each fixed key.
        axes: in the order of the file; the last one moves fastest.
        evaluate: what is measured beside the EMC; evaluate_lines: line of each key.
        frozen: what a frozen spec carries, so that a later version's defaults change nothing;
            None for a spec that a user wrote.
        checked: whether keys that do not go together are errors: not in a frozen spec as it was
            written, since a later version may know more of them.
    """

    name: str
    seed: int
    seed_line: int = 1
    fixed: dict[str, dict[str, Any]]
    fixed_lines: dict[Keys, int]
    axes: list[Axis]
    evaluate: Evaluate = field(default_factory=Evaluate)
    evaluate_lines: dict[Keys, int] = field(default_factory=dict)
    frozen: Frozen | None = None
    checked: bool = True
    problems: Problems = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of points."""
        return math.prod(len(axis.values) for axis in self.axes)

    def points(self) -> Iterator[Point]:
        """Expand to points, in order; combinations with an error go to ``problems`` instead.

        Sections are validated once per distinct combination of the axes that touch them, so the
        cost per point is a few look-ups and one hash.
        """
        touching = {s: self._touching(s) for s in SECTION_NAMES}
        seed_axes = self._touching("seed")
        sections: dict[tuple[Any, ...], tuple[Section, str] | None] = {}
        together: dict[tuple[int, int, int], bool] = {}
        paths = [
            (a, k, ".".join(key))
            for a, axis in enumerate(self.axes)
            for k, key in enumerate(axis.keys)
        ]
        spans = [range(len(axis.values)) for axis in self.axes]
        for index, at in enumerate(itertools.product(*spans)):
            found: list[tuple[Section, str] | None] = []
            for name in SECTION_NAMES:
                key = (name, *(at[a] for a in touching[name]))
                if key not in sections:
                    sections[key] = self._section(name, at)
                found.append(sections[key])
            seed = self._seed(at, seed_axes)
            if found[0] is None or found[1] is None:
                continue
            training = found[2][0] if found[2] else None
            combined = (id(found[0][0]), id(found[1][0]), id(training))
            if combined not in together:
                data, model = cast(Data, found[0][0]), cast(Model, found[1][0])
                procedure = cast(Training | None, training)
                together[combined] = check_together(
                    data, model, procedure, self._reporter(at)
                ) and self._can_evaluate(data, procedure)
            if not together[combined] or found[2] is None or found[3] is None or seed is None:
                continue
            data, model, training, search = (cast(Any, entry)[0] for entry in found)
            data_json, model_json, training_json, search_json = (
                cast(Any, entry)[1] for entry in found
            )
            text = point_json(data_json, model_json, search_json, seed, training_json)
            yield Point(
                index=index, id=digest(text), canonical=text, data=data, model=model,
                training=training, search=search, seed=seed,
                evaluate=self.evaluate if self.evaluate.wanted and generalizes(data) else None,
                swept={path: self.axes[a].values[at[a]][k] for a, k, path in paths},
            )  # fmt: skip

    def _touching(self, section: str) -> list[int]:
        return [a for a, axis in enumerate(self.axes) if any(k[0] == section for k in axis.keys)]

    def _values(self, section: str, at: tuple[int, ...]) -> tuple[dict[str, Any], dict[Keys, int]]:
        """The values of a section as the user gave them, and the line of each key."""
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
                    values = _put(values, keys[1:], value)
        frozen = self.frozen or Frozen(variants={}, defaults={})
        return with_variant(section, _without_none(values), frozen.variants), lines

    def _section(self, name: str, at: tuple[int, ...]) -> tuple[Section, str] | None:
        given, lines = self._values(name, at)
        _, variant = variant_of(name, given)
        frozen = self.frozen or Frozen(variants={}, defaults={})
        section = resolve(
            name,
            complete(name, given, frozen.defaults.get(name, {}).get(str(variant), {})),
            lambda path, what: self._note((name, *path), what, lines),
            given=complete(name, given, {}) if self.checked else None,
        )
        return None if section is None else (section, canonical(plain(section)))

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

    def _can_evaluate(self, data: Data, training: Training | None) -> bool:
        found = [*check_evaluation(self.evaluate, data, training)]
        for key, what in found:
            self._note(("evaluate", key), what, self.evaluate_lines)
        return not found

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


def _put(values: dict[str, Any], keys: Keys, value: Any) -> dict[str, Any]:
    """Return a copy of ``values`` with ``value`` at a path; plain values on the way give way."""
    if len(keys) == 1:
        return {**values, keys[0]: value}
    return {**values, keys[0]: _put(spelled(values.get(keys[0])), keys[1:], value)}


def spelled(value: Any) -> dict[str, Any]:
    """Return a mapping that keys can be put into: the short form of a gate is its mode."""
    if isinstance(value, dict):
        return value
    return {"mode": value} if isinstance(value, str) else {}


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    """Return values without those left out by ``null``, on every level but inside of ``kwargs``."""
    return {
        key: _without_none(value) if isinstance(value, dict) and key != "kwargs" else value
        for key, value in values.items()
        if value is not None
    }
