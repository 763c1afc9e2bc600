"""Reference of the sweep-spec keys in Markdown, from the field docstrings of the sections.

python -m flexhpc.config.reference > docs/spec_keys.md
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from flexhpc.config.sections.base import FILLED, Section, inner_section
from flexhpc.config.sweep import EXTRA_SECTIONS
from flexhpc.config.variants import DEFAULT_VARIANT, KEYS, variants


def reference() -> str:
    """Return the reference as Markdown text."""
    lines = [
        "# Keys of a sweep spec",
        "",
        "Written by `python -m flexhpc.config.reference`; do not edit. A key that has no effect",
        "for the chosen variant is an error.",
    ]
    for name in KEYS:
        lines += _section(name)
    for name, section in EXTRA_SECTIONS.items():
        lines += ["", f"## {name}", "", inspect.cleandoc(section.__doc__ or ""), ""]
        lines += ["| key | default | meaning |", "|---|---|---|", *_rows(section, "", "")]
    return "\n".join(lines) + "\n"


def _section(section: str) -> Iterator[str]:
    """Yield the lines of a section: a table of the keys of several variants, then each variant."""
    key, default = KEYS[section], DEFAULT_VARIANT.get(section)
    names: dict[type[Section], list[str]] = {}
    for variant, cls in variants(section).items():
        names.setdefault(cls, []).append(variant)
    rows = {cls: [*_rows(cls, "", cls.discriminator or key)] for cls in names}
    users: dict[str, list[str]] = {}
    for cls, class_rows in rows.items():
        for row in class_rows:
            users.setdefault(row, []).append(names[cls][0])
    chosen = f"default {default}" if default else "required"
    yield from ("", f"## {section}", "", f"`{key}` selects the variant ({chosen}).")
    yield from ("", f"### {section}: keys of several variants", "")
    yield from ("| key | default | meaning | variants |", "|---|---|---|---|")
    for row, used_by in users.items():
        if len(used_by) > 1:
            others = [f"`{names[cls][0]}`" for cls in names if names[cls][0] not in used_by]
            text = ", ".join(f"`{name}`" for name in used_by)
            if len(others) < len(used_by):
                text = f"all but {', '.join(others)}" if others else "all"
            yield f"{row} {text} |"
    for cls, class_rows in rows.items():
        prefix = f"{cls.discriminator}: " if cls.discriminator else ""
        yield from ("", "### " + ", ".join(f"`{prefix}{name}`" for name in names[cls]))
        yield from ("", " ".join((cls.__doc__ or "").split()))
        if single := [row for row in class_rows if len(users[row]) == 1]:
            yield from ("", "| key | default | meaning |", "|---|---|---|", *single)


def _rows(cls: type[BaseModel], prefix: str, skip: str) -> Iterator[str]:
    for name, field in cls.model_fields.items():
        if name == skip or FILLED in field.metadata:
            continue
        if (inner := inner_section(field)) is not None:
            yield from _rows(inner, f"{prefix}{name}.", "")
            continue
        meaning = " ".join((field.description or "").split()).replace("|", "\\|")
        default = _default(field.get_default(call_default_factory=True, validated_data={}))
        yield f"| `{prefix}{name}` | {default} | {meaning} |"


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`"


if __name__ == "__main__":
    print(reference(), end="")
