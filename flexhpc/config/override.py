"""Apply ``--set key=value`` to a spec before it is validated."""

from __future__ import annotations

from typing import Any

from flexhpc.config.nested import with_value
from flexhpc.config.sweep import EXTRA_SECTIONS
from flexhpc.config.validation import format_value
from flexhpc.config.yaml_reader import Document, parse_yaml, raise_if_problems
from flexhpc.errors import InputError


def apply_override(document: Document, text: str) -> None:
    """Apply ``key=value`` to the values of a parsed spec, in place.

    A scalar value fixes the key, which is then no longer swept or tuned. A list sweeps the key.

    Args:
        document: the parsed spec, a mapping.
        text: the override, ``key=value``.

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
    top: dict[str, Any] = document.value
    document.overrides[key] = f"--set {text}"
    path = tuple(key.split("."))
    if (section := path[0]) == "name" or section in EXTRA_SECTIONS:  # cannot be swept
        if key != section and isinstance(top.get(section), list):
            raise InputError(f"--set {text}: {section} is a list; set it as a whole")
        top.update(with_value(top, path, value))
        return
    grid = top.get("grid")
    for axes in (grid, top.get("tune")):
        if isinstance(axes, dict):
            axes.pop(key, None)
    entries = top["zip"] if isinstance(top.get("zip"), list) else []
    for entry in entries:
        if isinstance(entry, dict) and key in entry:
            if isinstance(value, list):
                entry[key] = value
                return
            del entry[key]
            if not entry:
                entries.remove(entry)
            break
    if isinstance(value, list):
        if not isinstance(grid, dict):
            grid = top["grid"] = {}
        grid[key] = value
    elif key == "seed":
        top["seed"] = value
    else:
        fixed = top.get("fixed")
        top["fixed"] = with_value(fixed if isinstance(fixed, dict) else {}, path, value)
