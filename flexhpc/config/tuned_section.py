"""Build and validate the sections of a point for every combination of tuned values.

``training.lr: {tune: [1e-4, 1e-2]}`` requests the EMC at the best value of a nuisance parameter.
Two numbers are a range, which is replaced by approximately log-spaced values from the lower to the
higher number. Three or more numbers are the values themselves.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field

from flexhpc.config.identity import canonical_json, id_values
from flexhpc.config.nested import Keys, merge_defaults, with_value
from flexhpc.config.pretrained import hash_network_files
from flexhpc.config.sections.base import INTERNAL, NUISANCE, Section, inner_section
from flexhpc.config.sections.custom import CustomCode
from flexhpc.config.sections.model import Model, Network
from flexhpc.config.sections.training import BUDGETS, Procedure
from flexhpc.config.validation import KeyProblem, format_value, validate
from flexhpc.config.variants import variant_union
from flexhpc.custom.code import IMPORT_PATH_PATTERN, Code, find_code
from flexhpc.errors import one_line_message

WIDEST_STEP = 3.2
"""Maximum ratio of neighbouring values to try in a range, before the values are rounded."""
_MAX_ARMS = 64


class FrozenDefaults(BaseModel):
    """The defaults that are stored in a frozen spec.

    Attributes:
        version: ``HASH_VERSION`` of the flexhpc release that wrote the spec.
        variants: section -> default variant.
        defaults: section -> variant -> key -> default value.
        code: import path of user code -> its location and version.
        network_files: ``FAMILY PRETRAINED`` -> hash of the files of the network.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Annotated[int, Field(ge=1)] = 1
    variants: dict[str, str]
    defaults: dict[str, dict[str, dict[str, Any]]]
    code: dict[str, Code] = Field(default_factory=dict)
    network_files: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One combination of the values of a point's tuned keys.

    Attributes:
        values: the values by dotted path; empty if nothing is tuned.
        edges: keys whose value is the smallest or the largest of the values to try.
        model, training: the sections with these values.
    """

    values: Mapping[str, float]
    edges: tuple[str, ...]
    model: Model
    training: Procedure


@dataclass(frozen=True, kw_only=True)
class TunedSection:
    """A section of a point, built for every combination of the values to try.

    Attributes:
        section: a Data, Model, Procedure or Search, with the first value of every tuned key.
        canonical: canonical JSON of the section, in which each tuned key has all its values to try.
            The id of the point is a hash that includes this text.
        candidates: dotted path of a tuned key -> the values to try.
        arms: for each combination of values to try, a pair: the values by dotted path, and the
            section with these values.
    """

    section: Any
    canonical: str
    candidates: dict[str, list[float]]
    arms: list[tuple[dict[str, float], Any]]


def build_section(
    name: str,
    values: dict[str, Any],
    *,
    frozen: FrozenDefaults | None = None,
    check_combinations: bool = True,
    folder: Path | None = None,
) -> tuple[TunedSection | None, list[KeyProblem]]:
    """Build a section from unvalidated values; return None and the problems if there are any.

    Args:
        name: name of the section.
        values: key -> value, including the key that selects the variant.
        frozen: the defaults of a frozen spec; None for the defaults of this flexhpc release.
        check_combinations: whether to report keys that cannot be combined.
        folder: folder to search for user code.
    """
    union = variant_union(name)
    untuned, requests = _split_tuned(values)
    cls = union.selected_class(untuned)
    if cls is None:
        return None, validate(union, untuned)[1]
    candidates, problems = _find_candidates(name, cls, requests)
    if problems:
        return None, problems
    names = [".".join((name, *path)) for path in candidates]
    key, variant = union.key_and_variant(untuned)
    defaults = frozen.defaults.get(name, {}).get(variant, {}) if frozen else {}
    for internal_key in cls.fields_with_mark(INTERNAL):
        if internal_key in untuned:
            problems.append(((internal_key,), "is set by flexhpc; remove it"))
    if issubclass(cls, CustomCode) and re.match(IMPORT_PATH_PATTERN, variant):
        try:
            code = (frozen.code.get(variant) if frozen else None) or find_code(variant, folder)
            pinned = untuned.get("version") is not None
            # After the check above, which rejects these keys in the spec.
            untuned |= {"folder": code.folder, "code": None if pinned else code.hash}
        except (LookupError, OSError) as error:
            problems.append(((key,), f"{variant}: {one_line_message(error)}"))
    if issubclass(cls, Network):
        pretrained = untuned.get("pretrained")
        known = frozen.network_files if frozen else {}
        try:
            if isinstance(pretrained, str | None):  # else reported below
                current = known.get(f"{variant} {pretrained}")
                untuned["weights"] = current or hash_network_files(variant, pretrained)
        except OSError as error:
            problems.append((("pretrained",) if pretrained else (key,), one_line_message(error)))
    arms = []
    for combination in itertools.product(*candidates.values()):
        arm_values = untuned
        for path, value in zip(candidates, combination, strict=True):
            arm_values = with_value(arm_values, path, value)
        full = _with_defaults(cls, arm_values, defaults)
        # combination_problems() must not see defaults as keys that the user wrote.
        if check_combinations and defaults:
            problems += validate(union, arm_values)[1]
        section, arm_problems = validate(
            union, full, check_combinations=check_combinations and not defaults
        )
        problems += arm_problems
        if section is None or problems:
            return None, problems
        arms.append((dict(zip(names, combination, strict=True)), section))
    first = arms[0][1]
    content = id_values(first)
    for path, tuned_values in candidates.items():
        content = with_value(content, path, {"tune": tuned_values})
    dotted = dict(zip(names, candidates.values(), strict=True))
    return TunedSection(
        section=first, canonical=canonical_json(content), candidates=dotted, arms=arms
    ), []


def _with_defaults(
    cls: type[Section], values: dict[str, Any], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """Add the defaults of a frozen spec to the values of a section.

    Optional inner sections that are not set get no defaults, and the default budget is omitted if a
    budget is set.
    """
    omitted = {
        key
        for key, value in defaults.items()
        if isinstance(value, dict)
        and key not in values
        and key in cls.model_fields
        and cls.model_fields[key].default is None
    }
    if any(budget in values for budget in BUDGETS):
        omitted |= {"epochs", "until"}
    elif "epochs" in defaults:  # an older version had a default budget
        omitted.add("until")
    return merge_defaults({k: v for k, v in defaults.items() if k not in omitted}, values)


def is_tuning_request(value: Any) -> bool:
    """Return whether an unvalidated value requests tuning."""
    return isinstance(value, dict) and "tune" in value


def _split_tuned(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[Keys, Any]]:
    """Separate the tuning requests from the values of a section.

    Returns:
        The values without the tuning requests, and a dict (key path -> tuning request).
    """
    plain: dict[str, Any] = {}
    tuned: dict[Keys, Any] = {}
    for key, value in values.items():
        if is_tuning_request(value):
            tuned[(key,)] = value
        elif isinstance(value, dict) and key != "kwargs":
            plain[key], inner = _split_tuned(value)
            tuned |= {(key, *path): request for path, request in inner.items()}
        else:
            plain[key] = value
    return plain, tuned


def _find_candidates(
    name: str, cls: type[Section], requests: dict[Keys, Any]
) -> tuple[dict[Keys, list[float]], list[KeyProblem]]:
    """Return a dict (path of a tuned key -> values to try), and all problems."""
    tunable, candidates = _tunable_keys(cls), {}
    problems: list[KeyProblem] = []
    for path, request in requests.items():
        if path not in tunable:
            keys = ", ".join(f"{name}.{'.'.join(key)}" for key in tunable) or "none"
            problem = f"cannot be tuned ({format_value(request)})"
            problems.append((path, f"{problem}; tunable keys of {name}: {keys}"))
        elif isinstance(values := _values_to_try(request, tunable[path]), str):
            problems.append((path, values))
        else:
            candidates[path] = values
    count = math.prod(map(len, candidates.values()))
    if count > _MAX_ARMS and not problems:
        problem = f"{count} combinations of tuned values; use at most {_MAX_ARMS}"
        problems.append((next(iter(candidates)), problem))
    return candidates, problems


def _tunable_keys(cls: type[Section]) -> dict[Keys, bool]:
    """Return a dict: path of each tunable key -> whether the key takes only integers."""
    paths: dict[Keys, bool] = {}
    for name, field in cls.model_fields.items():
        if (inner := inner_section(field)) is not None:
            paths |= {
                (name, *path): only_integers for path, only_integers in _tunable_keys(inner).items()
            }
        elif NUISANCE in field.metadata:
            parts = (field.annotation, *get_args(field.annotation))
            paths[(name,)] = int in [getattr(part, "__origin__", part) for part in parts]
    return paths


def _values_to_try(request: Mapping[str, Any], only_integers: bool) -> list[float] | str:
    """Return a sorted list of the values to try, or an error message if the request is invalid.

    Args:
        request: the unvalidated request, ``{"tune": [...]}``.
        only_integers: whether the values must be integers.
    """
    values = request["tune"]
    valid = (
        len(request) == 1
        and isinstance(values, list)
        and len(values) > 1
        and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        and all(math.isfinite(v) and v > 0 for v in values)
        and values == sorted(set(values))
    )
    if not valid:
        return "tune takes ascending numbers above 0: [lowest, highest], or at least three values"
    if only_integers and not all(isinstance(v, int) for v in values):
        return "tune takes whole numbers for this key"
    if len(values) > 2:
        return list(values)
    low, high = values
    log_ratio = math.log(high) - math.log(low)  # high / low may overflow
    steps = math.ceil(log_ratio / math.log(WIDEST_STEP) - 1e-9)
    inner = (low * math.exp(log_ratio * i / steps) for i in range(1, steps))
    rounded = [round(v) if only_integers else float(f"{v:.2g}") for v in inner]
    return [low, *dict.fromkeys(v for v in rounded if low < v < high), high]


def arms_of(model: TunedSection, training: TunedSection) -> tuple[Arm, ...]:
    """Return the arms of a point: all combinations of the tuned values of model and training."""
    candidates, arms = model.candidates | training.candidates, []
    for (model_values, network), (training_values, procedure) in itertools.product(
        model.arms, training.arms
    ):
        values = model_values | training_values
        edges = [key for key, x in values.items() if x in (candidates[key][0], candidates[key][-1])]
        arms.append(Arm(values=values, edges=tuple(edges), model=network, training=procedure))
    return tuple(arms)
