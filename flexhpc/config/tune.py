"""Tuned keys: the values to try for each key, and one arm per combination of values.

``training.lr: {tune: [1e-4, 1e-2]}`` requests the EMC at the best value of a nuisance parameter.
Two numbers are a range, which is replaced by approximately log-spaced values from the lower to the
higher number. Three or more numbers are the values themselves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from flexhpc.config.nested import Keys
from flexhpc.config.sections.base import NUISANCE, Section, inner_section
from flexhpc.config.sections.model import Model
from flexhpc.config.sections.training import Procedure

WIDEST_STEP = 3.2
"""Maximum ratio of neighbouring values to try in a range, before the values are rounded."""
MAX_ARMS = 64


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


def is_tuning_request(value: Any) -> bool:
    """Return whether an unvalidated value requests tuning."""
    return isinstance(value, dict) and "tune" in value


def split_tuned(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[Keys, Any]]:
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
            plain[key], inner = split_tuned(value)
            tuned |= {(key, *path): request for path, request in inner.items()}
        else:
            plain[key] = value
    return plain, tuned


def values_to_try(request: Mapping[str, Any], only_integers: bool) -> list[float] | str:
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


def tunable_keys(cls: type[Section]) -> dict[Keys, bool]:
    """Return a dict: path of each tunable key -> whether the key takes only integers."""
    paths: dict[Keys, bool] = {}
    for name, field in cls.model_fields.items():
        if (inner := inner_section(field)) is not None:
            paths |= {
                (name, *path): only_integers for path, only_integers in tunable_keys(inner).items()
            }
        elif NUISANCE in field.metadata:
            parts = (field.annotation, *get_args(field.annotation))
            paths[(name,)] = int in [getattr(part, "__origin__", part) for part in parts]
    return paths
