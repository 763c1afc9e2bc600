"""Load a :class:`Sweep` from a YAML file and ``--set`` overrides; report all errors at once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from flexhpc.config.comparing import check_compare
from flexhpc.config.entry import Frozen
from flexhpc.config.identity import HASH_VERSION
from flexhpc.config.nested import Keys, put
from flexhpc.config.override import apply_override
from flexhpc.config.point import Point
from flexhpc.config.resolve import closest, show, validate
from flexhpc.config.sections.base import Section
from flexhpc.config.sections.compare import Compare
from flexhpc.config.sections.evaluate import Evaluate
from flexhpc.config.sections.record import Record
from flexhpc.config.sweep import Axis, Sweep
from flexhpc.config.variants import KEYS
from flexhpc.config.yaml_reader import (
    Document,
    Dumper,
    Path_,
    Problem,
    parse,
    raise_problems,
    read,
)  # fmt: skip
from flexhpc.custom.code import Code
from flexhpc.errors import InputError, one_line

BESIDE: dict[str, type[Section]] = {"evaluate": Evaluate, "record": Record, "compare": Compare}
"""Sections for tasks other than measuring EMCs. They do not change a point's id."""
TOP_KEYS = ("name", "seed", "fixed", "grid", "zip", "tune", *BESIDE, "frozen")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}\Z")
_MOST_POINTS = 100_000
"""Maximum number of points: each has a file that is read whenever the sweep is monitored."""
GIVEN = "spec"
"""Replaces the file name in messages about a spec that is passed as values."""


S = TypeVar("S", bound=Section)
Spec = Path | Mapping[str, Any]
"""A sweep spec: its YAML file, or the equivalent nested values."""


def load(spec: Spec, overrides: Sequence[str] = ()) -> Sweep:
    """Read a sweep spec without expanding its points.

    Args:
        spec: the YAML file, or its content. User code is searched in the folder of the file, or in
            the working directory if the content is passed.
        overrides: ``key=value`` texts. A scalar fixes a key (which is then no longer swept), a list
            sweeps it; ``name`` and ``seed`` may be set as well.

    Raises:
        InputError: the file or an override has an invalid form; one line per error.
    """
    document = read(spec) if isinstance(spec, Path) else _written(spec)
    wrong: list[str] = []
    for override in overrides:
        try:
            apply_override(document.value, override, BESIDE)
        except InputError as error:
            wrong += error.lines
    if wrong:
        raise InputError(wrong)
    sweep = _Reader(document).sweep()
    sweep.beside = spec.absolute().parent if isinstance(spec, Path) else Path.cwd()
    sweep.checked = sweep.frozen is None or bool(overrides)
    return sweep


def _written(spec: Mapping[str, Any]) -> Document:
    """Parse a spec that is passed as values, as if it had been read from a file."""
    try:
        text = yaml.dump(dict(spec), Dumper=Dumper, sort_keys=False, allow_unicode=True)
    except yaml.YAMLError as error:
        raise InputError(f"the spec holds what YAML cannot: {one_line(error)}") from None
    return parse(text, GIVEN)


def checked(spec: Spec, overrides: Sequence[str] = ()) -> tuple[Sweep, list[Point]]:
    """Read a sweep spec and expand it to points.

    Raises:
        InputError: with every error of the file, sorted by line.
    """
    sweep = load(spec, overrides)
    points = list(sweep.points())
    file = str(spec) if isinstance(spec, Path) else GIVEN
    problems = [
        Problem(file=file, line=line, key=key, what=what)
        for line, key, what in (*sweep.problems, *_clashes(sweep, points), *check_compare(sweep))
    ]
    evaluate = sweep.evaluate
    if sweep.checked and evaluate.wanted and not any(point.evaluate for point in points):
        what = "has no effect: all labels are random or all inputs noise; leave it out"
        at = ("evaluate", evaluate.size_key)
        line = sweep.evaluate_lines[at]
        problems.append(Problem(file=file, line=line, key=".".join(at), what=what))
    raise_problems(problems)
    return sweep, points


def _clashes(sweep: Sweep, points: list[Point]) -> list[tuple[int, str, str]]:
    """Return an error for points with the same id, which differ only in keys that are not part of
    it."""
    first: dict[str, Point] = {}
    for point in points:
        other = first.setdefault(point.id, point)
        if other is not point:
            keys = [k for k in point.swept if point.swept[k] != other.swept[k]]
            line = next((axis.lines[0][0] for axis in sweep.axes if keys
                         and tuple(keys[0].split(".")) in axis.keys), 1)  # fmt: skip
            if not keys:
                return [(line, "grid", "holds the same combination twice; keep one")]
            what = "points that differ only here are one point (the same id)"
            named = keys in (["data.root"], ["data.path"]) and hasattr(point.data, "name")
            fix = "; give data.name to tell data sets apart" if named else ""
            return [(line, keys[0], what + fix)]
    return []


class _Reader:
    def __init__(self, document: Document) -> None:
        self.doc = document
        self.top: dict[str, Any] = document.value
        self.problems = list(document.problems)

    def note(self, path: Path_, what: str, key: str | None = None) -> None:
        shown = key or ".".join(map(str, path)) or "(top)"
        line = self.doc.line(path)
        self.problems.append(Problem(file=self.doc.file, line=line, key=shown, what=what))

    def sweep(self) -> Sweep:
        """Read the top level of the document.

        Raises:
            InputError: the sweep has too many points.
        """
        for key in self.top:
            if key not in TOP_KEYS:
                known = TOP_KEYS[:-1]
                self.note(
                    (key,), f"unknown key; there are {', '.join(known)}{closest(key, [*known])}"
                )
        sweep = Sweep(
            name=self._name(),
            seed=self.top.get("seed", 0) if self.top.get("seed") is not None else 0,
            fixed=self._fixed(),
            fixed_lines=self._fixed_lines(),
            axes=[*self._grid(), *self._zip()],
            evaluate=self._beside("evaluate", Evaluate),
            evaluate_lines=self._lines_of("evaluate", Evaluate),
            record=self._beside("record", Record),
            record_lines=self._lines_of("record", Record),
            compare=self._compare(),
            compare_lines=self._lines_of("compare", Compare),
            frozen=self._frozen(),
            seed_line=self.doc.line(("seed",)),
        )
        self._overlaps(sweep.axes)
        if sweep.size > _MOST_POINTS:
            what = f"{sweep.size:,} points are more than {_MOST_POINTS:,}; split the sweep"
            self.note(("grid",), what)
            raise_problems(self.problems)
        sweep.problems.update({(p.line, p.key, p.what): None for p in self.problems})
        return sweep

    def _frozen(self) -> Frozen | None:
        """Read the frozen defaults. flexhpc writes them itself, so one error for the whole is
        enough."""
        if "frozen" not in self.top:
            return None
        frozen = self.top["frozen"]
        variants = frozen.get("variants") if isinstance(frozen, dict) else None
        version = frozen.get("version") if isinstance(frozen, dict) else None
        defaults = frozen.get("defaults") if isinstance(frozen, dict) else None
        levels = [variants, defaults]
        if isinstance(defaults, dict):
            levels += defaults.values()
            levels += [v for d in defaults.values() if isinstance(d, dict) for v in d.values()]
        if not all(isinstance(level, dict) for level in levels) or not isinstance(version, int):
            self.note(("frozen",), "is written by flexhpc, and was changed; leave it out")
            return None
        if version != HASH_VERSION:
            what = f"unsupported version ({version}); this flexhpc reads version {HASH_VERSION}"
            self.note(("frozen",), what)
            return None
        try:
            code = {name: Code(**place) for name, place in (frozen.get("code") or {}).items()}
        except (AttributeError, TypeError):
            self.note(("frozen",), "is written by flexhpc, and was changed; leave it out")
            return None
        return Frozen(variants=variants or {}, defaults=defaults or {}, code=code)

    def _beside(self, name: str, cls: type[S]) -> S:
        return self._section(name, cls, self._mapping(name)) or cls()

    def _section(self, name: str, cls: type[S], values: Mapping[str, Any]) -> S | None:
        def report(path: tuple[str, ...], what: str) -> None:
            self.note((name, *path), what)

        given = {k: v for k, v in values.items() if v is not None}
        for key, what in cls.clashes(given):
            report((key,), what)
        return validate(name, cls, given, report)

    def _compare(self) -> list[Compare]:
        """Read one comparison or a list of them."""
        asked = self.top.get("compare")
        if asked is None:
            return []
        listed = asked if isinstance(asked, list) else [asked]
        if not all(isinstance(one, dict) for one in listed):
            what = "must be a mapping, as {by: training.optimizer}, or a list of them"
            self.note(("compare",), what)
            return []
        read = [self._section("compare", Compare, one) for one in listed]
        return [one for one in read if one is not None]

    def _lines_of(self, name: str, cls: type[Section]) -> dict[Keys, int]:
        paths = [(name, key) for key in cls.model_fields]
        return {path: self.doc.line(path) for path in paths}

    def _name(self) -> str:
        name = self.top.get("name")
        if name is None:
            self.note(("name",), "is required; it names the run folder")
        elif not isinstance(name, str):
            self.note(("name",), f"{show(name)} must be letters or digits as text; quote it")
        elif not _NAME.match(name):
            what = "must be letters, digits, _ and - (at most 100, not - at the start)"
            self.note(("name",), f"{show(name)} {what}")
        return str(name)

    def _fixed(self) -> dict[str, dict[str, Any]]:
        fixed = self._mapping("fixed")
        result: dict[str, dict[str, Any]] = {}
        for section, values in fixed.items():
            if section not in KEYS:
                self.note(("fixed", section), self._no_section(section))
            elif not isinstance(values, dict):
                self.note(("fixed", section), f"must be a mapping, not {show(values)}")
            else:
                result[section] = values
        for key, asked in self._mapping("tune").items():
            path = tuple(str(key).split("."))
            if len(path) < 2 or path[0] not in KEYS or "" in path:
                what = "does not lead into fixed; give a dotted path, as training.lr"
                self.note(("tune", key), what, f"tune.{key}")
            else:
                result = put(result, path, {"tune": asked})
        return result

    def _no_section(self, name: str) -> str:
        if name == "seed":
            return "stands at the top level, beside fixed"
        names = list(KEYS)
        return f"unknown section; there are {', '.join(names)}{closest(name, names)}"

    def _fixed_lines(self) -> dict[Keys, int]:
        lines: dict[Keys, int] = {(): self.doc.line(("fixed",))}
        for path, line in self.doc.lines.items():
            if path[:1] == ("fixed",) and len(path) > 1:
                lines[tuple(map(str, path[1:]))] = line
        for key in self._mapping("tune"):
            lines[tuple(str(key).split("."))] = self.doc.line(("tune", key))
        return lines

    def _mapping(self, key: str) -> dict[str, Any]:
        value = self.top.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.note((key,), f"must be a mapping, not {show(value)}")
            return {}
        return value

    def _grid(self) -> list[Axis]:
        axes = []
        for key, values in self._mapping("grid").items():
            axis = self._axis({key: values}, ("grid",))
            if axis:
                axes.append(axis)
        return axes

    def _zip(self) -> list[Axis]:
        entries = self.top.get("zip")
        if entries is None:
            return []
        if not isinstance(entries, list):
            self.note(("zip",), "must be a list of mappings: `- {key: [..], key: [..]}`")
            return []
        axes = []
        for i, entry in enumerate(entries):
            if not isinstance(entry, dict) or not entry:
                self.note(("zip", i), "must be a mapping of keys to lists of equal length")
            elif axis := self._axis(entry, ("zip", i)):
                axes.append(axis)
        return axes

    def _axis(self, entry: dict[str, Any], at: Path_) -> Axis | None:
        """Return one axis from keys that move together; note problems and return None if it is
        invalid."""
        fine = True
        for key, values in entry.items():
            root = key.split(".")[0]
            if "" in key.split("."):
                self.note((*at, key), "is not a dotted path into fixed, as model.width", key)
            elif root not in KEYS and key != "seed":
                self.note((*at, key), f"does not lead into fixed: {self._no_section(root)}", key)
            elif not isinstance(values, list) or not values:
                self.note((*at, key), "must be a list of at least one value", key)
            elif len({repr(v) for v in values}) < len(values) and len(entry) == 1:
                self.note((*at, key), "holds a value twice; keep one", key)
            else:
                continue
            fine = False
        lengths = {key: len(v) for key, v in entry.items() if isinstance(v, list)}
        if len(set(lengths.values())) > 1:
            sizes = ", ".join(f"{k}: {n}" for k, n in lengths.items())
            self.note(at, f"keys that move together need lists of equal length ({sizes})")
            fine = False
        if not fine:
            return None
        keys = tuple(tuple(key.split(".")) for key in entry)
        lines = zip(
            *([self.doc.line((*at, k, i)) for i in range(len(v))] for k, v in entry.items()),
            strict=True,
        )
        return Axis(
            keys=keys,
            values=tuple(zip(*entry.values(), strict=True)),
            lines=tuple(lines),
            zipped=at[0] == "zip",
        )

    def _overlaps(self, axes: list[Axis]) -> None:
        """Note keys that are set by two axes, or together with their whole section."""
        seen: dict[Keys, int] = {
            tuple(str(key).split(".")): self.doc.line(("tune", key))
            for key in self._mapping("tune")
        }
        for axis in axes:
            for k, keys in enumerate(axis.keys):
                fixed = self.top.get("fixed")
                beneath = fixed.get(keys[0]) if isinstance(fixed, dict) else None
                if len(keys) == 1 and isinstance(beneath, dict):
                    for key in beneath:
                        what = f"has no effect: {keys[0]} is swept as a whole; give it there"
                        self.note(("fixed", keys[0], key), what, f"{keys[0]}.{key}")
                if len(keys) == 1 and keys[0] in KEYS:
                    for i, value in enumerate(axis.values):
                        if not isinstance(value[k], dict):
                            what = f"must be a mapping of keys, not {show(value[k])}"
                            line = axis.lines[i][k]
                            self.problems.append(
                                Problem(file=self.doc.file, line=line, key=keys[0], what=what)
                            )
                for other, line in seen.items():
                    shorter = min(len(keys), len(other))
                    if keys[:shorter] == other[:shorter]:
                        key = ".".join(keys)
                        what = f"is already set by {'.'.join(other)} in line {line}; keep one"
                        self.problems.append(
                            Problem(file=self.doc.file, line=axis.lines[0][k], key=key, what=what)
                        )
                seen[keys] = axis.lines[0][k]
