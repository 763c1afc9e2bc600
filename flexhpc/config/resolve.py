"""Resolve one section of a point from plain keys to a validated object, or report its problems."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from flexhpc.config.sections.base import Section
from flexhpc.config.sections.custom import OWN
from flexhpc.config.sections.training import BUDGETS
from flexhpc.config.variants import (
    DEFAULT_VARIANT,
    KEYS,
    OFFERED,
    OTHER_KEYS,
    deciding_key,
    variants,
)
from flexhpc.custom.code import NAME, registered

S = TypeVar("S", bound=Section)

Report = Callable[[tuple[str, ...], str], None]
"""Called with the path of a key inside the section, and the problem."""


def variant_of(section: str, values: Mapping[str, Any]) -> tuple[str, Any]:
    """Return the deciding key and the variant that ``values`` choose (or the default variant)."""
    key = KEYS[section]
    if (other := OTHER_KEYS.get(section)) in values:
        key = str(other)
    return key, values.get(key, DEFAULT_VARIANT.get(section))


def spelled_out(section: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return the values with registered names of variants replaced by their ``module:name``.

    Installed packages register names as entry points.
    """
    key, variant = variant_of(section, values)
    kind = OFFERED.get((section, key))
    if kind is None or not isinstance(variant, str) or variant_class(section, variant) is not None:
        return values
    found = registered(kind).get(variant)
    return values if found is None else {**values, key: found}


def with_variant(section: str, values: dict[str, Any], chosen: Mapping[str, str]) -> dict[str, Any]:
    """Return the values with the variant of a frozen spec added, unless they choose one."""
    key = variant_of(section, values)[0]
    return {key: chosen[section], **values} if section in chosen else values


def variant_class(section: str, variant: object) -> type[Section] | None:
    """Return the class of a variant, or None if there is no such variant."""
    if not isinstance(variant, str):
        return None
    if section == "model" and variant.startswith("timm:"):
        variant = "timm:NAME"
    elif ":" in variant:
        variant = OWN
    return variants(section).get(variant)


def complete(section: str, values: dict[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Expand short forms and add the ``defaults`` of a frozen spec for missing values.

    Defaults of an optional part, such as ``model.subspace``, are added only if the values have this
    part.
    """
    cls = variant_class(section, variant_of(section, values)[1])
    optional = [k for k, field in cls.model_fields.items() if _optional_part(field)] if cls else []
    defaults = {k: v for k, v in defaults.items() if k not in optional or k in values}
    if section == "training":
        if isinstance(gates := values.get("gates"), dict):
            spelled = {k: {"mode": v} if isinstance(v, str) else v for k, v in gates.items()}
            values = {**values, "gates": spelled}
        if any(budget in values for budget in BUDGETS):
            defaults = {k: v for k, v in defaults.items() if k != "epochs"}
    return beneath(defaults, values)


def _optional_part(field: FieldInfo) -> bool:
    inner = (one for one in get_args(field.annotation) if isinstance(one, type))
    return field.default is None and any(issubclass(one, Section) for one in inner)


def beneath(defaults: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested values with defaults added for missing keys."""
    merged = {**defaults, **values}
    for key, default in defaults.items():
        if isinstance(default, dict) and isinstance(values.get(key), dict):
            merged[key] = beneath(default, values[key])
    return merged


def resolve(
    section: str, values: Mapping[str, Any], report: Report, *, given: Mapping[str, Any] | None
) -> Section | None:
    """Validate one section; report every error, and return None if there is one.

    Args:
        section: name of the section.
        values: values of its keys, including the defaults of a frozen spec.
        report: called with each error.
        given: the values of the user, which are checked for invalid combinations; None for no
            check.
    """
    key, variant = variant_of(section, values)
    cls = variant_class(section, variant)
    if cls is None or deciding_key(section, cls) != key:
        report((key,), _no_variant(section, key, variant))
        _validate_others(section, key, values, report)
        return None
    fine = given is None or not _clashes(cls, {**given, key: variant}, report)
    validated = validate(section, cls, {**values, key: variant}, report, variant=str(variant))
    return validated if fine else None


def _no_variant(section: str, key: str, variant: object) -> str:
    """Return the error message for an invalid value of the key that selects the variant."""
    classes = variants(section).items()
    names = [name for name, cls in classes if deciding_key(section, cls) == key]
    if (section, key) in OFFERED:
        names += [name for name in registered(OFFERED[section, key]) if name not in names]
    if variant is None:
        return f"is required; choose one of {', '.join(names)}"
    if names == [OWN]:
        return f"{show(variant)} does not have the form module:name"
    other = OTHER_KEYS.get(section)
    if other and variant_class(section, variant):
        return f"{show(variant)} is a name of your own; write {other}: {variant}"
    return f"{show(variant)} is not one of {', '.join(names)}{closest(variant, names)}"


def _validate_others(section: str, key: str, values: Mapping[str, Any], report: Report) -> None:
    """Report errors in the other keys if the variant is unknown.

    Each key is validated by the first variant that has it.
    """
    classes = dict.fromkeys(variants(section).values())
    judged: dict[type[Section], dict[str, Any]] = {}
    for name, value in values.items():
        has = next((cls for cls in classes if name in cls.model_fields), None)
        if has is None:
            known = [*dict.fromkeys(field for cls in classes for field in cls.model_fields)]
            report((name,), f"unknown key{closest(name, known)}")
        elif name != key:
            judged.setdefault(has, {})[name] = value
    for cls, given in judged.items():

        def said(path: tuple[str, ...], what: str, given: dict[str, Any] = given) -> None:
            if path[0] in given:
                report(path, what)

        validate(section, cls, given, said)


def _clashes(cls: type[Section], values: dict[str, Any], report: Report) -> bool:
    """Report invalid combinations of keys; return True if there are any."""
    clashes = list(cls.clashes(values))
    for dotted, what in clashes:
        report(tuple(dotted.split(".")), what)
    return bool(clashes)


def validate(
    section: str, cls: type[S], values: dict[str, Any], report: Report, *, variant: str = ""
) -> S | None:
    """Validate values against one class; report every error, and return None if there is one."""
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            path, what = explain(section, cls, variant, detail)
            report(path, what)
        return None


def explain(
    section: str, cls: type[Section], variant: str, detail: ErrorDetails
) -> tuple[tuple[str, ...], str]:
    """Convert one pydantic error to the path of the key and one sentence: problem, reason, fix."""
    path = tuple(str(part) for part in detail["loc"] if part not in ("int", "float"))
    kind, context, value = detail["type"], detail.get("ctx", {}), detail["input"]
    if kind == "extra_forbidden":
        return path, _unknown(section, cls, variant, path)
    if kind == "missing":
        return path, "is required; give it under fixed, grid or zip"
    if kind == "literal_error":
        names = context["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        return path, f"{show(value)} is not one of {', '.join(names)}{closest(value, names)}"
    if kind == "string_pattern_mismatch":
        form = "module:name" if context["pattern"] == NAME else context["pattern"]
        return path, f"{show(value)} does not have the form {form}"
    if kind in _WANTED:
        return path, f"must be {_WANTED[kind]}, not {show(value)}"
    if kind in _BOUNDS:
        bound = next(context[k] for k in ("ge", "gt", "le", "lt", "multiple_of") if k in context)
        return path, f"must be {_BOUNDS[kind]} {bound:g}, not {show(value)}"
    return path, f"{detail['msg'].lower()}, not {show(value)}"


_WANTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "list_type": "a list (under grid and in --set, where a list sweeps, [[..]])",
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


def _unknown(section: str, cls: type[Section], variant: str, path: tuple[str, ...]) -> str:
    """Return why a key is invalid: it has no effect for this variant, or does not exist."""
    if len(path) == 1 and section in KEYS:
        key, others = deciding_key(section, cls), variants(section).items()
        users = [name for name, other in others if path[0] in other.model_fields]
        if users:
            hint = ", or put it into kwargs" if "kwargs" in cls.model_fields else ""
            return (
                f"has no effect with {key}: {variant} (only with {', '.join(users)}); leave it out"
                + hint
            )
    if path == ("learning_rate",):
        return "several rates are tuned now: write lr: {tune: [lowest, highest]}, or each of them"
    inner: Any = cls
    for part in path[:-1]:
        inner = inner.model_fields[part].annotation
        inner = next((one for one in get_args(inner) if hasattr(one, "model_fields")), inner)
    names = list(inner.model_fields)
    return f"unknown key; there are {', '.join(names)}{closest(path[-1], names)}"


def closest(value: object, names: list[str]) -> str:
    """Return ``; did you mean X?`` if one of ``names`` is similar to ``value``."""
    near = difflib.get_close_matches(str(value), names, 1)
    return f"; did you mean {near[0]}?" if near else ""


def show(value: object) -> str:
    """Return a value as the user may have written it, truncated to 60 characters."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
