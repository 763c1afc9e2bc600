"""Reference of the sweep-spec keys in Markdown, from the field docstrings of the sections.

python -m flexhpc.config.reference > docs/spec_keys.md
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from flexhpc.config.sections.base import FILLED, inner_section
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
    for name, key in KEYS.items():
        classes = variants(name)
        default = DEFAULT_VARIANT.get(name)
        chosen = f"default {default}" if default else "required"
        lines += ["", f"## {name}", "", f"`{key}` picks the variant ({chosen})."]
        for cls in dict.fromkeys(classes.values()):
            picks = f"{cls.decided_by}: " if cls.decided_by else ""
            names = ", ".join(f"`{picks}{v}`" for v, c in classes.items() if c is cls)
            lines += ["", f"### {names}", "", " ".join((cls.__doc__ or "").split())]
            if rows := [*_rows(cls, "", cls.decided_by or key)]:
                lines += ["", "| key | default | meaning |", "|---|---|---|", *rows]
    for name, section in EXTRA_SECTIONS.items():
        lines += ["", f"## {name}", "", inspect.cleandoc(section.__doc__ or ""), ""]
        lines += ["| key | default | meaning |", "|---|---|---|", *_rows(section, "", "")]
    return "\n".join(lines) + "\n"


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
