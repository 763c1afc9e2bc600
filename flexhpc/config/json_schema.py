"""JSON schema of sweep specs, generated from the sections, for completion in editors."""

from __future__ import annotations

from typing import Any

from flexhpc.config.sections.compare import Compare
from flexhpc.config.sections.evaluate import Evaluate
from flexhpc.config.sections.gates import Gates
from flexhpc.config.sections.record import Record
from flexhpc.config.tune import nuisances
from flexhpc.config.variants import KEYS, deciding_key, variants

_TEXT = {"type": "string"}
_TUNED = {
    "type": "object",
    "properties": {"tune": {"type": "array", "items": {"type": "number"}, "minItems": 2}},
    "required": ["tune"],
    "additionalProperties": False,
}


def sweep_schema() -> dict[str, Any]:
    """Return the schema (draft 2020-12) of a sweep spec."""
    definitions: dict[str, Any] = {}
    fixed = {name: _section(name, definitions) for name in KEYS}
    values = {"type": "array", "minItems": 1}
    compare = {**Compare.model_json_schema(), "type": "object"}
    paths = {
        f"{name}.{key}": {**values, "items": _item(field)}
        for name, section in fixed.items()
        for key, field in section["properties"].items()
    }
    swept = {
        "type": "object",
        "properties": {**paths, "seed": {**values, "items": {"type": "integer", "minimum": 0}}},
        "patternProperties": {rf"^({'|'.join(KEYS)})(\..+)?$": values},
        "additionalProperties": False,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "flexhpc sweep spec",
        "type": "object",
        "required": ["name"],
        "additionalProperties": False,
        "properties": {
            "name": {**_TEXT, "pattern": "^[A-Za-z0-9_-]{1,100}$"},
            "seed": {"type": "integer", "minimum": 0},
            "fixed": {"type": "object", "properties": fixed, "additionalProperties": False},
            "grid": swept,
            "zip": {"type": "array", "items": swept},
            "tune": {
                "type": "object",
                "additionalProperties": {
                    "type": "array",
                    "items": {"type": "number"},
                    "minItems": 2,
                },
            },
            "evaluate": {**Evaluate.model_json_schema(), "type": "object"},
            "record": {**Record.model_json_schema(), "type": "object"},
            "compare": {"anyOf": [compare, {"type": "array", "items": compare, "minItems": 1}]},
        },
        "$defs": definitions,
    }


def _section(name: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a section with all keys of all variants.

    Which keys can be combined is checked by ``flexhpc validate`` only.
    """
    classes = variants(name)
    merged: dict[str, Any] = {}
    for cls in dict.fromkeys(classes.values()):
        schema = cls.model_json_schema(ref_template="#/$defs/{model}")
        definitions.update(schema.pop("$defs", {}))
        may = nuisances(cls)
        for field, body in schema["properties"].items():
            known = merged.setdefault(field, {"anyOf": [], "description": body.get("description")})
            plain = {k: v for k, v in body.items() if k not in ("title", "description")}
            for one in (plain, _TUNED) if (field,) in may else (plain,):
                if one not in known["anyOf"]:
                    known["anyOf"].append(one)
    for decides in dict.fromkeys(deciding_key(name, cls) for cls in classes.values()):
        mine = {v: cls for v, cls in classes.items() if deciding_key(name, cls) == decides}
        names = [variant for variant, cls in mine.items() if not cls.called]
        choices = [{"enum": names}] if names else []
        choices += [one for one in merged[decides]["anyOf"] if "pattern" in one]
        merged[decides] = {"anyOf": choices, "description": f"Picks the variant of {name}."}
    if "gates" in merged:
        for gate in (type(field.default).__name__ for field in Gates.model_fields.values()):
            modes = definitions[gate]["properties"]["mode"]["enum"]
            definitions[gate] = {"anyOf": [{"enum": modes}, definitions[gate]]}
    return {"type": "object", "properties": merged, "additionalProperties": False}


def _item(field: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a swept value: the type of the key, or null to omit the key."""
    return {"anyOf": [*field["anyOf"], {"type": "null"}]}
