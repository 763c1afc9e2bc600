"""Validate a section; return every problem with the path of its key."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import groupby
from typing import Any, TypeVar

from pydantic import ValidationError, create_model
from pydantic_core import ErrorDetails

from flexhpc.config.sections.base import INTERNAL, UNION_TAG, Section, inner_section
from flexhpc.config.sections.custom import CUSTOM
from flexhpc.config.variants import ENTRY_POINTS, VariantUnion
from flexhpc.config.yaml_reader import KeyPath
from flexhpc.custom.code import IMPORT_PATH_PATTERN, entry_point_targets

S = TypeVar("S", bound=Section)

KeyProblem = tuple[KeyPath, str]
"""Path of an invalid key in its section, and the problem."""

_TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "list_type": "a list",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
_BOUNDS = {
    "greater_than_equal": "at least",
    "greater_than": "above",
    "less_than_equal": "at most",
    "less_than": "below",
    "multiple_of": "a multiple of",
}
SWEEP_NAME = r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,99}$"
_PATTERNS = {
    IMPORT_PATH_PATTERN: "have the form module:name",
    SWEEP_NAME: "consist of letters, digits, _ and - (at most 100 characters, not starting with -)",
}
_SYNONYMS = {"learning_rate": "lr"}


def validate(
    kind: type[S] | VariantUnion[S], values: Mapping[str, Any], *, check_combinations: bool = True
) -> tuple[S | None, list[KeyProblem]]:
    """Validate values; return the section and all problems.

    Args:
        kind: the class of a section, or the variants of a section.
        values: the unvalidated values.
        check_combinations: whether to report keys that cannot be combined, see
            :meth:`Section.combination_problems`.

    Returns:
        The section, and a list of problems. Check the problems, not the section: if there are any,
        the section contains only the valid values, and None for missing required keys. The section
        is None if the values select no variant.
    """
    cls = kind.selected_class(values) if isinstance(kind, VariantUnion) else kind
    if cls is None:
        assert isinstance(kind, VariantUnion)
        return None, _unknown_variant_problems(kind, values)
    problems: list[KeyProblem] = []
    try:
        section = cls.model_validate(values)
    except ValidationError as error:
        details = [d for d in error.errors() if d["type"] != "default_factory_not_called"]
        for path, same in groupby(details, _error_path):
            problems.append((path, _problem_text(kind, cls, values, path, list(same))))
        section = _partial_section(cls, values, [path for path, _ in problems])
    if check_combinations:
        invalid = [path for path, _ in problems]
        problems += [
            (path, problem)
            for path, problem in _combination_problems(section)
            if not any(path[: len(other)] == other for other in invalid)
        ]
    return section, problems


def _combination_problems(section: Section) -> Iterator[KeyProblem]:
    """Yield (path, problem) for keys that cannot be combined, also in inner sections."""
    for key, problem in section.combination_problems():
        yield tuple(key.split(".")), problem
    for name in type(section).model_fields:
        if isinstance(inner := getattr(section, name), Section):
            for path, problem in _combination_problems(inner):
                yield (name, *path), problem


def _partial_section(cls: type[S], values: Mapping[str, Any], invalid: list[KeyPath]) -> S:
    """Build a section from the values that are not at a path in ``invalid``.

    Missing required keys are set to None.
    """
    optional: type[S] = _with_optional_keys(cls)
    rest = values
    for path in invalid:
        rest = _without_value(rest, path)
    try:
        return optional.model_validate(rest)
    except ValidationError:  # a required key of an inner section is missing
        outer = {path[0] for path in invalid}
        return optional.model_validate({k: v for k, v in rest.items() if k not in outer})


def _without_value(values: Mapping[Any, Any], path: KeyPath) -> dict[Any, Any]:
    """Return a copy of nested mappings without the value at a path."""
    key, *inner = path
    if inner and isinstance(values.get(key), Mapping):
        return {**values, key: _without_value(values[key], tuple(inner))}
    return {name: value for name, value in values.items() if name != key}


@cache
def _with_optional_keys(cls: type[S]) -> type[S]:
    """Return a subclass of ``cls`` in which the required keys default to None."""
    required = {
        name: (field.annotation, None)
        for name, field in cls.model_fields.items()
        if field.is_required()
    }
    return create_model(cls.__name__, __base__=cls, **required)  # type: ignore[call-overload,no-any-return]


def _unknown_variant_problems(
    kind: VariantUnion[Any], values: Mapping[str, Any]
) -> list[KeyProblem]:
    """Return the problem that the values select no variant, and the problems with other keys."""
    key, variant = kind.key_and_variant(values)
    text = format_value(variant)
    names = [name for name, cls in kind.classes.items() if (cls.discriminator or kind.key) == key]
    names += [name for name in entry_point_targets(ENTRY_POINTS.get(key, "")) if name not in names]
    if variant is None:
        problem = f"is required; choose one of {', '.join(names)}"
    elif names == [CUSTOM]:
        problem = f"must have the form module:name, not {text}"
    elif cls := kind.class_of(variant):
        problem = f"{text} is custom code; use {cls.discriminator}: {variant}"
    else:
        problem = f"{text} is not one of {', '.join(names)}{suggestion(variant, names)}"
    other_values = {name: value for name, value in values.items() if name != key}
    _, others = validate(kind.any_variant, other_values, check_combinations=False)
    return [((key,), problem), *(other for other in others if other[0][0] in other_values)]


def _error_path(detail: ErrorDetails) -> KeyPath:
    """Return the key path of a pydantic error.

    The names of types, which pydantic adds to the location in unions, are omitted.
    """
    types = ("int", "float", "str", "bool")
    return tuple(
        part
        for part in detail["loc"]
        if (part not in types or detail["type"] == "extra_forbidden")
        and not str(part).startswith(("function-", "constrained-", UNION_TAG))
    )


def _problem_text(
    kind: type[Section] | VariantUnion[Any],
    cls: type[Section],
    values: Mapping[str, Any],
    path: KeyPath,
    details: list[ErrorDetails],
) -> str:
    """Return one message for all errors that pydantic found at a key.

    The message names the problem and, if known, the fix.
    """
    detail = details[0]
    error, context, value = detail["type"], detail.get("ctx", {}), detail["input"]
    if all(each["type"] in _TYPES for each in details):
        types = dict.fromkeys(_TYPES[each["type"]] for each in details)
        if "a number" in types:
            types.pop("a whole number", None)
        fix = ""
        if error == "list_type" and isinstance(kind, VariantUnion):
            fix = "; under grid and in --set, write [[...]], because a plain list sweeps the key"
        elif error == "string_type" and isinstance(value, int | float):
            fix = "; quote it"
        elif isinstance(value, list) and isinstance(kind, VariantUnion) and kind.key != "cluster":
            fix = "; to sweep this key, list its values under grid"  # profiles have no grid
        return f"must be {' or '.join(types)}, not {format_value(value)}{fix}"
    if error == "extra_forbidden":
        return _unknown_key_problem(kind, cls, values, path)
    if error == "missing":
        return "is required"
    if error == "literal_error":
        names = context["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        return f"{format_value(value)} is not one of {', '.join(names)}{suggestion(value, names)}"
    if error == "string_pattern_mismatch":
        pattern = context["pattern"]
        return f"must {_PATTERNS.get(pattern, f'match {pattern}')}, not {format_value(value)}"
    if error in _BOUNDS:
        bound = next(context[k] for k in ("ge", "gt", "le", "lt", "multiple_of") if k in context)
        return f"must be {_BOUNDS[error]} {bound:g}, not {format_value(value)}"
    if error == "too_short":
        return "must not be empty"
    if error == "value_error":
        return f"{format_value(value)} {context['error']}"
    return f"{detail['msg'].lower()}, not {format_value(value)}"


def _unknown_key_problem(
    kind: type[Section] | VariantUnion[Any], cls: type[Section], values: Any, path: KeyPath
) -> str:
    """Return the message for a key that does not exist, or that the selected variant lacks."""
    key, inner = path[-1], cls
    if len(path) == 1 and isinstance(kind, VariantUnion):
        users = [name for name, other in kind.classes.items() if key in other.model_fields]
        if users:
            key_name, variant = kind.key_and_variant(values)
            hint = ", or put it into kwargs" if "kwargs" in cls.model_fields else ""
            only = ", ".join(users)
            return f"has no effect with {key_name}: {variant} (only with {only}); remove it{hint}"
    for part in path[:-1]:
        field = inner.model_fields.get(str(part))
        inner = (field and inner_section(field)) or inner
    names = [name for name, field in inner.model_fields.items() if INTERNAL not in field.metadata]
    return f"unknown key; use one of {', '.join(names)}{suggestion(key, names)}"


def suggestion(value: object, names: list[str]) -> str:
    """Return ``; did you mean X?`` if one of ``names`` is similar to ``value``."""
    near = difflib.get_close_matches(_SYNONYMS.get(str(value), str(value)), names, 1)
    return f"; did you mean {near[0]}?" if near else ""


def format_value(value: object) -> str:
    """Return a value as JSON for a message, truncated to 60 characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
