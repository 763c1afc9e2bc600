"""Apply ``--set key=value`` to a spec before it is validated."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from flexhpc.config.nested import expand_short_form
from flexhpc.config.validation import format_value
from flexhpc.config.yaml_reader import parse_yaml, raise_if_problems
from flexhpc.errors import InputError


def apply_override(top: dict[str, Any], text: str, top_keys: Collection[str]) -> None:
    """Apply ``key=value`` to the values of a parsed spec, in place.

    A scalar value fixes the key, which is then no longer swept or tuned. A list sweeps the key.

    Args:
        top: the parsed spec, a nested dict.
        text: the override, ``key=value``.
        top_keys: keys at the top level that cannot be swept.

    Raises:
        InputError: the text is not one line of the form ``key=value``, the value is invalid YAML,
            or the key is inside a section that is a list.
    """
    key, equals, value_text = text.partition("=")
    key = key.strip().removeprefix("fixed.")
    if not equals or not key:
        raise InputError(f"--set {text}: must have the form key=value, such as model.width=64")
    if len(text.splitlines()) > 1:
        raise InputError(f"--set {format_value(text)}: must be one line")
    parsed = parse_yaml("value: " + value_text, f"--set {text}")
    raise_if_problems(parsed.problems)
    value = parsed.value.get("value")
    if (section := key.split(".")[0]) in top_keys:
        if key != section and isinstance(top.get(section), list):
            raise InputError(f"--set {text}: {section} is a list; set it as a whole")
        _set_value(top, key, value)
        return
    grid = top.get("grid")
    for axes in (grid, top.get("tune")):
        if isinstance(axes, dict):
            axes.pop(key, None)
    if _override_in_zip(top, key, value):
        return
    if isinstance(value, list):
        if not isinstance(grid, dict):
            grid = top["grid"] = {}
        grid[key] = value
    elif key == "seed":
        top["seed"] = value
    else:
        if not isinstance(top.get("fixed"), dict):
            top["fixed"] = {}
        _set_value(top["fixed"], key, value)


def _override_in_zip(top: dict[str, Any], key: str, value: Any) -> bool:
    """Override a key that a ``zip`` entry sweeps; return whether its values were replaced.

    A list replaces the values of the key. Any other value removes the key from the entry, because
    the key is no longer swept; the result is then False. It is also False if no entry has the key.
    """
    entries = top.get("zip")
    if not isinstance(entries, list):
        return False
    for entry in entries:
        if isinstance(entry, dict) and key in entry:
            if isinstance(value, list):
                entry[key] = value
                return True
            del entry[key]
            if not entry:
                entries.remove(entry)
            return False
    return False


def _set_value(target: dict[str, Any], key: str, value: Any) -> None:
    """Set the value of a dotted key in nested mappings, in place."""
    *parents, last = key.split(".")
    for part in parents:
        target[part] = expand_short_form(target.get(part))
        target = target[part]
    target[last] = value
