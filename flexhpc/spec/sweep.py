"""A sweep spec: fixed values, the axes that sweep over them, and the points they expand to."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, cast

from flexhpc.spec.checks import check_evaluation, check_together, check_tuned, generalizes
from flexhpc.spec.identity import HASH_VERSION, before, canonical, digest, plain, point_json
from flexhpc.spec.resolve import (
    Report,
    beneath,
    complete,
    resolve,
    show,
    variant_class,
    variant_of,
    with_variant,
)
from flexhpc.spec.sections import SECTIONS, Data, Evaluate, Model, Search, Section, Training
from flexhpc.spec.tune import (
    MOST_ARMS,
    WIDEST_STEP,
    Arm,
    combinations,
    ladder,
    nuisances,
    put,
    taken_out,
)

Keys = tuple[str, ...]
SECTION_NAMES = tuple(SECTIONS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One fully resolved combination of a sweep spec; asks for one EMC.

    Attributes:
        index: position in the sweep, from 0.
        id: content hash of all that can change the result.
        canonical: the JSON text that was hashed.
        model, training: as they are without tuning, or of the first arm.
        arms: what is tried of the tuned keys; a single one without values where none is.
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
    arms: tuple[Arm, ...]
    evaluate: Evaluate | None
    swept: dict[str, Any]

    @property
    def coordinates(self) -> tuple[tuple[float, ...], ...]:
        """Per arm, its place on the scale of each tuned key, in steps of a range."""
        step = math.log(WIDEST_STEP)
        return tuple(
            tuple(math.log(value) / step for value in arm.values.values()) for arm in self.arms
        )

    def at(self, arm: int) -> Point:
        """Return the point with the values of one of its arms in place."""
        chosen = self.arms[arm]
        return replace(self, model=chosen.model, training=chosen.training)

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
        version: of the hash that its points have.
        variants: section -> variant where the spec does not say.
        defaults: section -> variant -> key -> value.
    """

    version: int = HASH_VERSION
    variants: dict[str, str] = field(default_factory=dict)
    defaults: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Resolved:
    """A section of a point, and what of it is tuned.

    Attributes:
        section: with the first value of every tuned key.
        text: its canonical JSON.
        tried: dotted path inside the section -> the values that are tried.
        arms: the section for every combination of these, in the order of :func:`combinations`.
    """

    section: Section
    text: str
    tried: dict[Keys, list[float]]
    arms: tuple[tuple[dict[Keys, float], Section], ...]


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

    @property
    def version(self) -> int:
        """Version of the hash that its points have."""
        return self.frozen.version if self.frozen else HASH_VERSION

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
        sections: dict[tuple[Any, ...], _Resolved | None] = {}
        together: dict[tuple[int, ...], bool] = {}
        paths = [
            (a, k, ".".join(key))
            for a, axis in enumerate(self.axes)
            for k, key in enumerate(axis.keys)
        ]
        spans = [range(len(axis.values)) for axis in self.axes]
        for index, at in enumerate(itertools.product(*spans)):
            found: list[_Resolved | None] = []
            for name in SECTION_NAMES:
                key = (name, *(at[a] for a in touching[name]))
                if key not in sections:
                    sections[key] = self._section(name, at)
                found.append(sections[key])
            seed = self._seed(at, seed_axes)
            if found[0] is None or found[1] is None:
                continue
            combined = tuple(map(id, found))
            if combined not in together:
                together[combined] = self._go_together(found, at)
            if not together[combined] or found[2] is None or found[3] is None or seed is None:
                continue
            data, model, training, search = (cast(Any, entry).section for entry in found)
            data_json, model_json, training_json, search_json = (
                cast(Any, entry).text for entry in found
            )
            text = point_json(data_json, model_json, search_json, seed, training_json, self.version)
            yield Point(
                index=index, id=digest(text), canonical=text, data=data, model=model,
                training=training, search=search, seed=seed, arms=_arms(found[1], found[2]),
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
        frozen = self.frozen or Frozen()
        return with_variant(section, _without_none(values), frozen.variants), lines

    def _section(self, name: str, at: tuple[int, ...]) -> _Resolved | None:
        values, lines = self._values(name, at)

        def report(path: Keys, what: str) -> None:
            self._note((name, *path), what, lines)

        given, asked = taken_out(values)
        tried = self._tried(name, given, asked, report)
        if tried is None:
            return None
        _, variant = variant_of(name, given)
        cls = variant_class(name, variant)
        frozen = self.frozen or Frozen()
        defaults = frozen.defaults.get(name, {}).get(str(variant), {})
        retired: dict[str, Any] = {}
        if cls is not None and self.version < HASH_VERSION:
            defaults = beneath(before(cls, self.version), defaults)
            retired = {k: v for k, v in (defaults | given).items() if k in cls.retired}
            given, defaults = (
                {k: v for k, v in some.items() if k not in cls.retired}
                for some in (given, defaults)
            )
        arms = []
        for values_of in combinations(tried):
            chosen = given
            for path, value in values_of.items():
                chosen = put(chosen, path, value)
            section = resolve(
                name,
                complete(name, chosen, defaults),
                report,
                given=complete(name, chosen, {}) if self.checked else None,
            )
            if section is None:
                return None
            arms.append((values_of, section))
        first = arms[0][1]
        content = plain(first, self.version) | retired
        for path, several in tried.items():
            content = put(content, path, {"tune": several})
        return _Resolved(section=first, text=canonical(content), tried=tried, arms=tuple(arms))

    def _tried(
        self, name: str, given: dict[str, Any], asked: dict[Keys, Any], report: Report
    ) -> dict[Keys, list[float]] | None:
        """Return the values of each tuned key of a section; None (and problems) if one is wrong."""
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

    def _go_together(self, found: list[_Resolved | None], at: tuple[int, ...]) -> bool:
        """Check across sections; every error is noted."""
        data, model, training, search = (cast(Any, one and one.section) for one in found)
        report = self._reporter(at)
        fine = check_together(data, model, training, report) and self._can_evaluate(data, training)
        keys = [
            (name, *path)
            for name, one in zip(SECTION_NAMES, found, strict=True)
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


def _arms(model: _Resolved, training: _Resolved) -> tuple[Arm, ...]:
    """Return every combination of what is tuned in two sections."""
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
                training=cast(Training, other),
            )
        )
    return tuple(arms)


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
