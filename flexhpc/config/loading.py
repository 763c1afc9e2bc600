"""Load a :class:`Sweep` from a YAML file and ``--set`` overrides; report all errors at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

import yaml

from flexhpc.config.identity import HASH_VERSION
from flexhpc.config.nested import Keys, with_value, without_none
from flexhpc.config.override import apply_override
from flexhpc.config.point import Point, swept_value_text
from flexhpc.config.sections.compare import Compare, Decide
from flexhpc.config.sweep import EXTRA_SECTIONS, Axis, Sweep, SweepSpec
from flexhpc.config.validation import format_value, suggestion, validate
from flexhpc.config.variants import KEYS
from flexhpc.config.yaml_reader import (
    Document,
    Dumper,
    KeyPath,
    parse_yaml,
    raise_if_problems,
    read_yaml,
)
from flexhpc.errors import InputError, one_line_message

_MAX_POINTS = 100_000
"""Maximum number of points of a sweep, limited because monitoring reads one file per point."""
MAPPING_NAME = "spec"
"""Text that replaces the file name in messages if the spec is passed as a mapping."""
Spec = Path | Mapping[str, Any]
"""A sweep spec: the path of its YAML file, or its content as a mapping."""


def load_sweep(spec: Spec, overrides: Sequence[str] = ()) -> Sweep:
    """Read a sweep spec without expanding its points.

    Args:
        spec: the YAML file, or its content. User code is searched for in the folder of the file or,
            if the content is passed, in the working directory.
        overrides: ``key=value`` strings. A scalar value fixes the key, which is then no longer
            swept. A list sweeps the key. Keys outside ``fixed``, such as ``name`` and
            ``evaluate.n``, may be set as well.

    Raises:
        InputError: the file or an override is invalid; the exception has one line per error.
    """
    document = read_yaml(spec) if isinstance(spec, Path) else _parse_mapping(spec)
    errors: list[str] = []
    for override in overrides:
        try:
            apply_override(document, override)
        except InputError as error:
            errors += error.lines
    if errors:
        raise InputError(errors)
    sweep = _build_sweep(document)
    size = math.prod(axis.size for axis in sweep.axes)
    if size > _MAX_POINTS:
        problem = f"{size:,} points exceed the maximum of {_MAX_POINTS:,}; split the sweep"
        document.add_problem_at(("grid",), problem)
        raise_if_problems(document.problems)
    sweep.folder = spec.absolute().parent if isinstance(spec, Path) else Path.cwd()
    sweep.check_combinations = sweep.spec.frozen is None or bool(overrides)
    return sweep


def load_points(spec: Spec, overrides: Sequence[str] = ()) -> tuple[Sweep, list[Point]]:
    """Read a sweep spec and expand it to points.

    Raises:
        InputError: the spec is invalid; the exception contains all errors, sorted by line.
    """
    sweep = load_sweep(spec, overrides)
    points = list(sweep.points())
    _check_ids(sweep, points)
    if sweep.check_combinations:
        compared: set[tuple[object, ...]] = set()
        for i, compare in enumerate(sweep.compare):
            for key, problem in _check_compare(compare, sweep):
                _add_problem(sweep.document, ("compare", i, *key.split(".")), problem)
            values = [v for axis in sweep.axes for v in axis.values.get(compare.by, [])]
            baseline = str(values[:1] if compare.baseline is None else [compare.baseline])
            margin = (compare.decide or Decide()).margin
            comparison = (compare.by, baseline, *sorted(compare.within or []), margin)
            if comparison in compared:
                problem = "repeats the comparison of an earlier entry; remove one of them"
                _add_problem(sweep.document, ("compare", i, "by"), problem)
            compared.add(comparison)
        evaluate = sweep.spec.evaluate
        if evaluate.enabled and points and not any(point.evaluate for point in points):
            reason = "random labels, random tokens, or gaussian or permuted_each inputs"
            problem = f"has no effect: every point has {reason}; remove it"
            sweep.document.add_problem_at(("evaluate", evaluate.size_key), problem)
    raise_if_problems(sweep.document.problems)
    return sweep, points


def _parse_mapping(spec: Mapping[str, Any]) -> Document:
    """Convert a mapping to YAML and parse it, so that errors are reported as for a file."""
    try:
        text = yaml.dump(dict(spec), Dumper=Dumper, sort_keys=False, allow_unicode=True)
    except yaml.YAMLError as error:
        raise InputError(f"the spec cannot be written as YAML: {one_line_message(error)}") from None
    return parse_yaml(text, MAPPING_NAME)


def _build_sweep(document: Document) -> Sweep:
    """Build a sweep from a parsed spec; add errors to ``document.problems``."""
    top = {
        key: without_none(value) if key in EXTRA_SECTIONS and isinstance(value, dict) else value
        for key, value in document.value.items()
        if value is not None or key not in SweepSpec.model_fields
    }
    spec, problems = validate(SweepSpec, top)
    assert spec is not None  # SweepSpec has no variants
    for key_path, text in problems:
        _add_problem(document, key_path, text)
    if spec.frozen is not None and spec.frozen.version != HASH_VERSION:
        problem = f"unsupported version ({spec.frozen.version})"
        fix = f"this release reads version {HASH_VERSION}; use the release that wrote the spec"
        document.add_problem_at(("frozen",), f"{problem}; {fix}")
    fixed: dict[str, dict[str, Any]] = {}
    for name, values in spec.fixed.items():
        if name not in KEYS:
            document.add_problem_at(("fixed", name), _unknown_section_problem(name))
        elif not isinstance(values, dict):
            problem = f"must be a mapping, not {format_value(values)}"
            document.add_problem_at(("fixed", name), problem)
        else:
            fixed[name] = values
    swept: list[tuple[KeyPath, dict[str, list[Any]]]] = [
        *((("grid",), {key: values}) for key, values in spec.grid.items()),
        *((("zip", i), entry) for i, entry in enumerate(spec.zip)),
    ]
    max_seeds = max((c.decide.max_seeds for c in spec.compare if c.decide), default=0)
    axes = [
        _build_axis(path, entry, max_seeds)
        for path, entry in swept
        if _is_valid_axis(path, entry, document)
    ]
    tuned = []
    all_fixed = fixed
    for key, request in spec.tune.items():
        path = tuple(key.split("."))
        if len(path) < 2 or path[0] not in KEYS or "" in path:
            problem = "must be the dotted path of a key in fixed, such as training.lr"
            document.add_problem_at(("tune", key), problem)
        else:
            all_fixed = with_value(all_fixed, path, {"tune": request})
            tuned.append(path)
    _check_overlaps(axes, tuned, fixed, document)
    return Sweep(spec=spec, document=document, fixed=all_fixed, axes=axes)


def _add_problem(document: Document, path: KeyPath, problem: str) -> None:
    """Add a problem at ``path`` to a document. The message names the key without list indices."""
    if path[0] == "frozen":
        path, problem = path[:1], "is written by flexhpc and must not be edited; remove it"
    keys = [key for key in path if isinstance(key, str)]
    if path[0] in ("grid", "zip") and len(keys) > 1:
        document.add_problem_at(path, problem, ".".join(keys[1:]))
    elif path[0] == "compare" and not isinstance(document.value["compare"], list):
        document.add_problem_at(tuple(keys), problem)
    else:
        document.add_problem_at(path, problem, ".".join(keys))


def _unknown_section_problem(name: str) -> str:
    if name == "seed":
        return "belongs at the top level, next to fixed"
    return f"unknown section; use one of {', '.join(KEYS)}{suggestion(name, list(KEYS))}"


def _build_axis(path: KeyPath, entry: Mapping[str, list[Any]], max_seeds: int) -> Axis:
    """Build the axis of an entry of ``grid`` or ``zip``.

    If the entry sweeps only ``seed``, add seeds until there are ``max_seeds`` seeds, because
    comparisons may need seeds that the spec does not list.
    """
    axis = Axis(document_path=path, values=dict(entry), listed=len(next(iter(entry.values()))))
    if list(entry) == ["seed"]:
        unlisted = (seed for seed in count() if seed not in entry["seed"])
        added = islice(unlisted, max(max_seeds - axis.listed, 0))
        axis.values["seed"] = [*entry["seed"], *added]
    return axis


def _is_valid_axis(path: KeyPath, entry: Mapping[str, list[Any]], document: Document) -> bool:
    """Return whether an entry of ``grid`` or ``zip`` can be used; report its problems."""
    valid = True
    for key, values in entry.items():
        section = key.split(".")[0]
        if "" in key.split("."):
            problem = "must be the dotted path of a key in fixed, such as model.width"
        elif section not in KEYS and key != "seed":
            problem = f"is not a key of fixed: {_unknown_section_problem(section)}"
        elif len(entry) == 1 and len({repr(value) for value in values}) < len(values):
            problem = "contains a value twice; remove one of them"
        else:
            if key in KEYS:
                for i, value in enumerate(values):
                    if not isinstance(value, dict):
                        text = f"must be a mapping of keys, not {format_value(value)}"
                        document.add_problem_at((*path, key, i), text, key)
            continue
        document.add_problem_at((*path, key), problem, key)
        valid = False
    if len({len(values) for values in entry.values()}) > 1:
        sizes = ", ".join(f"{key}: {len(values)}" for key, values in entry.items())
        problem = f"keys that are swept together need lists of equal length ({sizes})"
        document.add_problem_at(path, problem)
        valid = False
    return valid


def _check_overlaps(
    axes: list[Axis], tuned: list[Keys], fixed: Mapping[str, Any], document: Document
) -> None:
    """Report keys that are set by two entries of ``grid``, ``zip`` or ``tune``.

    Also report fixed keys of a section that is swept as a whole.
    """
    seen: dict[Keys, int] = {keys: document.line_number(("tune", ".".join(keys))) for keys in tuned}
    for axis in axes:
        for name in axis.values:
            keys = tuple(name.split("."))
            for key in fixed.get(keys[0], {}) if len(keys) == 1 else ():
                problem = f"has no effect: {keys[0]} is swept as a whole"
                fix = f"set {key} in each value of {keys[0]}"
                location = ("fixed", keys[0], key)
                document.add_problem_at(location, f"{problem}; {fix}", f"{keys[0]}.{key}")
            for other, line in seen.items():
                shorter = min(len(keys), len(other))
                if keys[:shorter] == other[:shorter]:
                    problem = f"is already set by {'.'.join(other)} on line {line}"
                    fix = "remove one of them"
                    document.add_problem_at(axis.path(name, 0), f"{problem}; {fix}", name)
            seen[keys] = document.line_number(axis.path(name, 0))


def _check_ids(sweep: Sweep, points: list[Point]) -> None:
    """Report the first two points with equal ids.

    Such points differ at most in keys that are not part of an id.
    """
    first: dict[str, Point] = {}
    for point in points:
        other = first.setdefault(point.id, point)
        if other is not point:
            keys = [key for key in point.swept if point.swept[key] != other.swept[key]]
            if not keys:
                problem = "contains the same combination of values twice; remove one of them"
                sweep.document.add_problem_at(("grid",), problem)
                return
            axis = next(axis for axis in sweep.axes if keys[0] in axis.values)
            fix = "keep only one value"
            if keys in (["data.root"], ["data.path"]) and hasattr(point.data, "name"):
                fix = "give data.name to distinguish the data sets"
            problem = f"points that differ only in this key have the same id; {fix}"
            sweep.document.add_problem_at(axis.path(keys[0], 0), problem, keys[0])
            return


def _check_compare(compare: Compare, sweep: Sweep) -> Iterator[tuple[str, str]]:
    """Yield (key, problem) for each key of ``compare`` that contradicts the swept keys or their
    values."""
    swept = {
        name: list(dict.fromkeys(map(swept_value_text, values)))
        for axis in sweep.axes
        for name, values in axis.values.items()
    }
    for key, names in (("by", [compare.by]), ("within", compare.within or [])):
        for name in names:
            if name not in swept:
                keys = ", ".join(swept) or "none"
                yield key, f"{name} is not swept; swept keys: {keys}{suggestion(name, list(swept))}"
    if compare.by in (compare.within or []):
        yield "within", f"contains {compare.by}, which is the compared key; remove it"
    if compare.decide is not None:
        seeds = next((a for a in sweep.axes if list(a.values) == ["seed"]), None)
        if seeds is None or seeds.listed < 2 or compare.by == "seed":
            yield "decide", "requires two or more seeds in grid, such as seed: [0, 1]"
        elif "seed" in (compare.within or []):
            yield "within", "cannot contain seed, because decide adds seeds; remove seed"
        elif seeds.listed > compare.decide.max_seeds:
            problem = f"must be at least the number of seeds in grid ({seeds.listed})"
            yield "decide.max_seeds", problem
    if (values := swept.get(compare.by)) is None:
        return
    baseline = values[0] if compare.baseline is None else swept_value_text(compare.baseline)
    if len(values) < 2:
        yield "by", f"{compare.by} has only one value, so there is nothing to compare"
    if baseline not in values:
        yield "baseline", f"{baseline} is not one of {', '.join(values)}"
    elif len(values) > 1 and (
        unmatched := ", ".join(_keys_preventing_pairs(compare, baseline, sweep))
    ):
        problem = f"no other value has the same {unmatched} as {baseline}"
        fix = f"move {unmatched} from zip to grid"
        yield "by", f"{compare.by} gives no pairs, because {problem}; {fix}"


def _keys_preventing_pairs(compare: Compare, baseline: str, sweep: Sweep) -> list[str]:
    """Return the keys that prevent a comparison from having pairs; an empty list if it has pairs.

    The two points of a pair must have equal values of these keys (see
    :class:`flexhpc.analysis.effect.Pairing`). Only keys in the same ``zip`` entry as ``by`` can
    prevent pairs, because all keys outside this entry are combined with each value of ``by``.
    """
    axis = next(axis for axis in sweep.axes if compare.by in axis.values)
    columns = {name: list(map(swept_value_text, values)) for name, values in axis.values.items()}
    compared = columns.pop(compare.by)
    matched = {
        key: texts
        for key, texts in columns.items()
        if key == "seed"
        or (key.split(".")[0] == "data" if compare.within is None else key in compare.within)
        or len(set(zip(compared, texts, strict=True))) > len(set(compared))
    }
    points = set(zip(compared, *matched.values(), strict=True))
    has_pairs = any(value != baseline and (baseline, *rest) in points for value, *rest in points)
    return [] if has_pairs else list(matched)
