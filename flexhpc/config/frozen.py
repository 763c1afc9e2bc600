"""The frozen spec of a run: the spec with every default written out.

A later version may change a default; the points of a frozen spec and their ids stay the same.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import yaml

from flexhpc.config.identity import HASH_VERSION, canonical, digest
from flexhpc.config.point import Point
from flexhpc.config.resolve import variant_of
from flexhpc.config.sections.evaluate import Evaluate
from flexhpc.config.sections.record import Record
from flexhpc.config.sweep import Sweep
from flexhpc.config.variants import DEFAULT_VARIANT, KEYS
from flexhpc.config.yaml_reader import Dumper


def request(sweep: Sweep) -> dict[str, Any]:
    """Return the spec of the user with overrides applied, as plain values."""
    asked: dict[str, Any] = {"name": sweep.name, "seed": sweep.seed, "fixed": sweep.fixed}
    grid = {".".join(a.keys[0]): [v[0] for v in a.values] for a in sweep.axes if not a.zipped}
    zipped = [
        {".".join(keys): [v[k] for v in axis.values] for k, keys in enumerate(axis.keys)}
        for axis in sweep.axes
        if axis.zipped
    ]
    if sweep.evaluate != Evaluate():
        asked["evaluate"] = sweep.evaluate.model_dump(mode="json", exclude_none=True)
    if sweep.record != Record():
        asked["record"] = sweep.record.model_dump(mode="json", exclude_defaults=True)
    if sweep.compare:
        asked["compare"] = [one.model_dump(mode="json", exclude_none=True) for one in sweep.compare]
    if grid:
        asked["grid"] = grid
    if zipped:
        asked["zip"] = zipped
    return asked


def request_hash(sweep: Sweep) -> str:
    """Return a hash of the request, which identifies the frozen spec of an earlier run of it.

    The hash includes user code; the points of the sweep must be expanded before the call.
    """
    code = {"code": {name: code.hash for name, code in sweep.code.items()}} if sweep.code else {}
    return digest(canonical(request(sweep) | code))


def freeze(sweep: Sweep, points: list[Point]) -> str:
    """Return the frozen spec as YAML text that :func:`flexhpc.config.loading.load` reads."""
    defaults: dict[str, dict[str, Any]] = {}
    seen: set[int] = set()
    for point in points:
        for name in KEYS:
            section = getattr(point, name)
            if id(section) not in seen:
                seen.add(id(section))
                values = section.model_dump(mode="json", exclude_none=True)
                unset = section.model_dump(mode="json", exclude_none=True, exclude_unset=True)
                missing = _missing(values, unset)
                variant = variant_of(name, values)[1]
                held = defaults.setdefault(name, {}).setdefault(variant, {})
                _merge(held, missing)
    variants = sweep.frozen.variants if sweep.frozen else DEFAULT_VARIANT
    if sweep.frozen:
        _merge(defaults, sweep.frozen.defaults)
    held = {"version": HASH_VERSION, "variants": dict(variants), "defaults": defaults}
    if sweep.code:
        held["code"] = {name: asdict(code) for name, code in sweep.code.items()}
    frozen = {**request(sweep), "frozen": held}
    head = "# Frozen by flexhpc: the spec of this run, with every default written down.\n"
    return head + yaml.dump(frozen, Dumper=Dumper, sort_keys=False, allow_unicode=True)


def _missing(full: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return the entries of ``full`` that ``given`` lacks, on every level."""
    result = {}
    for key, value in full.items():
        if key not in given:
            result[key] = value
        elif isinstance(value, dict) and (inner := _missing(value, given[key])):
            result[key] = inner
    return result


def _merge(held: dict[str, Any], more: dict[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(held.get(key), dict):
            _merge(held[key], value)
        else:
            held.setdefault(key, value)
