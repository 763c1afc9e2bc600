"""A sweep spec: fixed values, the axes that are swept, and the points to which they expand."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from flexhpc.config.checks import can_generalize, check_point, check_search
from flexhpc.config.identity import digest, point_json
from flexhpc.config.nested import Keys, value_at, with_value, without_none
from flexhpc.config.point import Point
from flexhpc.config.sections.base import INTERNAL, Section, inner_section
from flexhpc.config.sections.compare import Compare
from flexhpc.config.sections.custom import CustomCode
from flexhpc.config.sections.evaluate import Evaluate
from flexhpc.config.sections.record import Record
from flexhpc.config.tuned_section import FrozenDefaults, TunedSection, arms_of, build_section
from flexhpc.config.validation import SWEEP_NAME, validate
from flexhpc.config.variants import DEFAULT_VARIANT, KEYS, variant_union, with_default_variant
from flexhpc.config.yaml_reader import Document, KeyPath
from flexhpc.custom.code import Code

Values = Annotated[list[Any], Field(min_length=1)]


class Seed(Section):
    """The seed of a point."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Random seed."""


class SweepSpec(Seed):
    """The top level of a sweep spec. The sections `evaluate`, `record` and `compare` request
    results in addition to the EMCs; they do not change EMCs and are not part of a point's id."""

    name: Annotated[str, Field(pattern=SWEEP_NAME)]
    """Name of the run folder and of the MLflow experiment."""
    fixed: dict[str, Any] = Field(default_factory=dict)
    """Values that all points share, by section and key."""
    grid: dict[str, Values] = Field(default_factory=dict)
    """Swept keys and their values; every combination is measured."""
    zip: list[Annotated[dict[str, Values], Field(min_length=1)]] = Field(default_factory=list)
    """Groups of keys that are swept together: the i-th values of all keys are combined."""
    tune: dict[str, Any] = Field(default_factory=dict)
    """Tuned keys and the values to try; the EMC is measured at the best combination of values."""
    evaluate: Evaluate = Evaluate()
    """Measurement of generalization."""
    record: Record = Record()
    """Additional measurements that are stored with every probe."""
    compare: Annotated[
        list[Compare], BeforeValidator(lambda value: [value] if isinstance(value, dict) else value)
    ] = Field(default_factory=list)
    """Comparisons of EMCs in the results and the report."""
    frozen: Annotated[FrozenDefaults | None, INTERNAL] = None
    """The defaults of a frozen spec. Later versions of flexhpc do not change them."""


EXTRA_SECTIONS = {
    name: section
    for name, field in SweepSpec.model_fields.items()
    if (section := inner_section(field)) is not None
}
"""Sections at the top level of a spec, next to ``fixed``: name -> class."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """Keys that are swept together: one key of ``grid``, or the keys of an entry of ``zip``.

    Attributes:
        document_path: path of the axis in the document.
        values: dotted path of each key -> the values of the key, one per position on the axis.
        listed: number of positions that the spec lists; all later positions are additional seeds,
            in case a comparison needs them.
    """

    document_path: KeyPath
    values: dict[str, list[Any]]
    listed: int

    @property
    def size(self) -> int:
        """Number of positions."""
        return len(next(iter(self.values.values())))

    def path(self, key: str, position: int) -> KeyPath:
        """Return the document path of the value that a key has at ``position``."""
        return (*self.document_path, key, position)


@dataclass(kw_only=True)
class Sweep:
    """A sweep spec. ``points()`` expands it and reports errors to the document.

    Attributes:
        spec: the top level of the spec.
        document: the values and line numbers of the file, and its errors.
        fixed: section -> key -> value, including the tuned keys.
        axes: the axes in the order of the file; the last one varies fastest.
        check_combinations: whether invalid combinations of keys are errors. False for an unmodified
            frozen spec, because the flexhpc release that wrote it accepted all its combinations.
        folder: folder of the spec, which is searched for user code.
        code: import path of user code -> its location and version; filled by ``points()``.
        network_files: see :class:`FrozenDefaults`; filled by ``points()``.
    """

    spec: SweepSpec
    document: Document
    fixed: dict[str, dict[str, Any]]
    axes: list[Axis]
    check_combinations: bool = True
    folder: Path | None = None
    code: dict[str, Code] = field(default_factory=dict)
    network_files: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the run folder and the MLflow experiment."""
        return self.spec.name

    @property
    def compare(self) -> list[Compare]:
        """Requested comparisons of EMCs."""
        return self.spec.compare

    def points(self) -> Iterator[Point]:
        """Yield the points in order; omit invalid combinations and report them to the document.

        A section is validated once per combination of the values that affect it, and points with
        the same sections share them, so the cost per point is a few look-ups and one hash.
        """
        if self.check_combinations:
            self._check_unused_values()
        affecting = {
            name: [
                a
                for a, axis in enumerate(self.axes)
                if any(key.split(".")[0] == name for key in axis.values)
            ]
            for name in (*KEYS, "seed")
        }
        sections: dict[tuple[Any, ...], Any] = {}
        shared_fields: dict[tuple[int, ...], dict[str, Any] | None] = {}
        ranges = [range(axis.size) for axis in self.axes]
        for index, positions in enumerate(itertools.product(*ranges)):
            entries: list[Any] = []
            for name in (*KEYS, "seed"):
                key = (name, *(positions[a] for a in affecting[name]))
                if key not in sections:
                    sections[key] = self._build_section_at(name, positions)
                entries.append(sections[key])
            data, model, training, search, seed = entries
            if data is None or model is None:
                continue
            ids = (id(data), id(model), id(training), id(search))
            if ids not in shared_fields:
                shared_fields[ids] = self._combine(positions, data, model, training, search)
            if (fields := shared_fields[ids]) is None or seed is None:
                continue
            text = point_json(
                data.canonical, model.canonical, search.canonical, seed.seed, training.canonical
            )  # fmt: skip
            swept = {key: value for key, value, _ in self._swept_values(positions)}
            optional = any(i >= axis.listed for axis, i in zip(self.axes, positions, strict=True))
            yield Point(
                index=index, id=digest(text), canonical=text, seed=seed.seed, swept=swept,
                optional=optional, **fields,
            )  # fmt: skip

    def _check_unused_values(self) -> None:
        """Report errors in fixed values that no point uses, because swept keys override them."""
        first = (0,) * len(self.axes)
        for key, _, _ in self._swept_values(first):
            if "." not in key:
                continue
            section, *rest = key.split(".")
            path = tuple(rest)
            value = value_at(self.fixed, (section, *path))
            if value is None:
                continue
            values = with_value(self._values_at(section, first), path, value)
            for inner, problem in build_section(section, values, folder=self.folder)[1]:
                if inner[: len(path)] == path and not problem.startswith("has no effect"):
                    inner_key = ".".join(map(str, (section, *inner)))
                    self.document.add_problem_at(("fixed", section, *inner), problem, inner_key)

    def _swept_values(self, positions: tuple[int, ...]) -> Iterator[tuple[str, Any, KeyPath]]:
        """Yield the dotted path, the value and the document path of each swept key of a point."""
        for axis, i in zip(self.axes, positions, strict=True):
            for key, values in axis.values.items():
                yield key, values[i], axis.path(key, i)

    def _values_at(self, section: str, positions: tuple[int, ...]) -> dict[str, Any]:
        """Return the unvalidated values of a section of one point.

        If they select no variant, the default variant is added.

        Args:
            section: name of the section.
            positions: the position of the point on each axis.
        """
        values: dict[str, Any] = dict(self.fixed.get(section, {}))
        for key, value, _ in self._swept_values(positions):
            if key == section:
                values = dict(value) if isinstance(value, dict) else {}
            elif key.startswith(f"{section}."):
                values = with_value(values, tuple(key.split(".")[1:]), value)
        if section == "model" and not values:
            training = self._values_at("training", positions)
            values = {"family": "none"} if "trainer" in training else {}
        defaults = self.spec.frozen.variants if self.spec.frozen else DEFAULT_VARIANT
        return with_default_variant(section, without_none(values), defaults.get(section))

    def _build_section_at(
        self, name: str, positions: tuple[int, ...]
    ) -> TunedSection | Seed | None:
        """Build a section or the seed of one point; return None if it is invalid.

        Args:
            name: name of the section, or ``seed``.
            positions: the position of the point on each axis.
        """
        if name == "seed":
            return self._build_seed_at(positions)
        values = self._values_at(name, positions)
        result, problems = build_section(
            name, values, frozen=self.spec.frozen, check_combinations=self.check_combinations,
            folder=self.folder,
        )  # fmt: skip
        for path, problem in problems:
            self._add_problem((name, *path), problem, positions)
        if result is not None and isinstance(result.section, CustomCode):
            _, variant = variant_union(name).key_and_variant(values)
            if (code := result.section.user_code).hash or variant not in self.code:
                self.code[variant] = code  # a section with a version has no hash
        if result is not None and (weights := getattr(result.section, "weights", None)):
            network = f"{result.section.family} {result.section.pretrained}"
            self.network_files[network] = weights
        return result

    def _build_seed_at(self, positions: tuple[int, ...]) -> Seed | None:
        """Build the seed of one point; return None if the seed is invalid."""
        values = {"seed": self.spec.seed}
        values |= {key: v for key, v, _ in self._swept_values(positions) if key == "seed"}
        seed, problems = validate(Seed, values)
        for path, problem in problems:
            self._add_problem(path, problem, positions)
        return None if problems else seed

    def _combine(
        self, positions: tuple[int, ...], data: TunedSection, model: TunedSection,
        training: TunedSection | None, search: TunedSection | None,
    ) -> dict[str, Any] | None:  # fmt: skip
        """Return the fields that all points with these sections share.

        The result is None if a section is invalid or cannot be combined with the others. Each key
        that cannot be combined is reported.
        """
        procedure = None if training is None else training.section
        evaluate, record = self.spec.evaluate, self.spec.record
        problems = [*check_point(data.section, model.section, procedure, evaluate, record)]
        if training is not None and search is not None:
            problems += check_search(search.section, data.section, model, training)
        for key, problem in problems:
            self._add_problem(tuple(key.split(".")), problem, positions)
        if problems or training is None or search is None:
            return None
        has_decision = any(compare.decide for compare in self.compare)
        return {
            "data": data.section,
            "model": model.section,
            "training": training.section,
            "search": search.section.with_coarse_tolerance() if has_decision else search.section,
            "precise_search": search.section if has_decision else None,
            "arms": arms_of(model, training),
            "evaluate": evaluate if evaluate.enabled and can_generalize(data.section) else None,
            "record": record,
        }

    def _add_problem(self, keys: KeyPath, problem: str, positions: tuple[int, ...]) -> None:
        """Add a problem to the document, at the line that sets the invalid value.

        Args:
            keys: path of the key with this value, starting with its section.
            problem: the text of the problem.
            positions: the position of the point on each axis, which selects the value of a swept
                key.
        """
        location: KeyPath = ("fixed", *keys) if keys[0] in KEYS else keys
        for key in self.spec.tune:
            path: Keys = tuple(key.split("."))
            if keys[: len(path)] == path:
                location = ("tune", key)
        for key, _, value_path in self._swept_values(positions):
            path = tuple(key.split("."))
            if keys[: len(path)] == path:
                location = (*value_path, *keys[len(path) :])
        self.document.add_problem_at(location, problem, ".".join(map(str, keys)))
