"""The frozen spec of a run: the spec with every default written out.

If a later version changes a default, the points of a frozen spec and their ids stay the same.
"""

from __future__ import annotations

from typing import Any

import yaml

from flexhpc.config.identity import HASH_VERSION, canonical_json, digest
from flexhpc.config.nested import merge_defaults
from flexhpc.config.point import Point
from flexhpc.config.sections.base import INTERNAL, Section, inner_section
from flexhpc.config.sweep import Sweep
from flexhpc.config.tuned_section import FrozenDefaults
from flexhpc.config.variants import DEFAULT_VARIANT, KEYS
from flexhpc.config.yaml_reader import Dumper


def requested_spec(sweep: Sweep) -> dict[str, Any]:
    """Return the user's spec as a nested dict, with the ``--set`` overrides applied."""
    spec = sweep.spec.model_copy(update={"fixed": sweep.fixed, "tune": {}})
    values = spec.model_dump(exclude_defaults=True, exclude={"frozen"})
    return {"name": spec.name, "seed": spec.seed, "fixed": {}, **values}


def request_hash(sweep: Sweep) -> str:
    """Return a hash of the user's spec and code.

    A run reuses its frozen spec if this hash has not changed. Iterate over ``sweep.points()``
    before calling this function, because the iteration collects the hashes of user code.
    """
    hashes: dict[str, Any] = {}
    if sweep.code:
        hashes["code"] = {name: code.hash for name, code in sweep.code.items()}
    if sweep.network_files:
        hashes["network_files"] = sweep.network_files
    return digest(canonical_json(requested_spec(sweep) | hashes))


def freeze(sweep: Sweep, points: list[Point]) -> str:
    """Return the frozen spec as YAML text that :func:`flexhpc.config.loading.load_sweep` reads."""
    defaults: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in KEYS}
    for point in points:
        for name in KEYS:
            section = getattr(point, name)
            cls = type(section)
            variant = getattr(section, cls.discriminator or KEYS[name])
            if variant not in defaults[name]:
                defaults[name][variant] = _defaults(cls)
    previous = sweep.spec.frozen
    frozen = FrozenDefaults(
        version=HASH_VERSION,
        variants=previous.variants if previous else DEFAULT_VARIANT,
        defaults=merge_defaults(defaults, previous.defaults) if previous else defaults,
        code=sweep.code,
        network_files=sweep.network_files,
    )
    values = requested_spec(sweep) | {"frozen": frozen.model_dump()}
    head = (
        "# Frozen by flexhpc: the spec of this run. The section `frozen` contains the default of "
        "every key; keys of other sections replace it.\n"
    )
    return head + yaml.dump(values, Dumper=Dumper, sort_keys=False, allow_unicode=True)


def _defaults(cls: type[Section]) -> dict[str, Any]:
    """Return the defaults of all keys that users can set, including the keys of inner sections."""
    values: dict[str, Any] = {}
    for name, field in cls.model_fields.items():
        value = field.get_default(call_default_factory=True, validated_data={})
        if (inner := inner_section(field)) is not None:
            if defaults := _defaults(inner):
                values[name] = defaults
        elif INTERNAL not in field.metadata and value is not None and not field.is_required():
            values[name] = value
    return values
