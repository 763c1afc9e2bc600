"""Points of a sweep, and swept values as short text."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import Any

from flexhpc.config.sections.data import Data
from flexhpc.config.sections.evaluate import Evaluate
from flexhpc.config.sections.model import Model
from flexhpc.config.sections.record import Record
from flexhpc.config.sections.search import Search
from flexhpc.config.sections.training import Procedure
from flexhpc.config.tuned_section import WIDEST_STEP, Arm, is_tuning_request


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One combination of the values in a sweep spec, for which one EMC is measured.

    Attributes:
        index: position in the sweep, from 0.
        id: hash of everything that can change the result.
        canonical: the canonical JSON text whose hash is ``id``.
        model, training: the sections; if keys are tuned, the sections of the first arm.
        arms: combinations of the tuned values; a single arm without values if nothing is tuned.
        evaluate: settings of the evaluation of generalization; None for no evaluation.
        record: additional measurements stored with every probe.
        swept: the values of the swept keys, by dotted path.
        precise_search: the search with the tolerance of the spec, which runs only if the coarse
            ``search`` does not decide all comparisons; None without ``compare.decide``.
        optional: True for a point whose seed is not listed in the spec. It is measured only if a
            comparison needs it.
    """

    index: int
    id: str
    canonical: str
    data: Data
    model: Model
    training: Procedure
    search: Search
    seed: int
    arms: tuple[Arm, ...]
    evaluate: Evaluate | None
    record: Record
    swept: dict[str, Any]
    precise_search: Search | None = None
    optional: bool = False

    def with_precise_search(self) -> Point:
        """Return a copy whose search is ``precise_search``; the point itself if that is None."""
        if self.precise_search is None:
            return self
        return replace(self, search=self.precise_search, precise_search=None)

    @property
    def arm_coordinates(self) -> tuple[tuple[float, ...], ...]:
        """For each arm, the logarithms of its tuned values in units of log(``WIDEST_STEP``)."""
        step = math.log(WIDEST_STEP)
        return tuple(
            tuple(math.log(value) / step for value in arm.values.values()) for arm in self.arms
        )

    def at_arm(self, arm_index: int) -> Point:
        """Return a copy of the point with the model and training sections of one arm."""
        arm = self.arms[arm_index]
        return replace(self, model=arm.model, training=arm.training)

    @property
    def label(self) -> str:
        """The swept values in short form, such as ``random width=48``, for tables and run names.

        A key is omitted if its value is a string, because the MLflow UI truncates names after about
        15 characters.
        """
        return " ".join(swept_value_label(key, value) for key, value in self.swept.items())

    def value_text(self, key: str) -> str | None:
        """Return the value of a swept or fixed key as text; None for an unknown key.

        The key is a dotted path. If several runs are read, the key ``run`` gives the name of the
        run.
        """
        if key in self.swept:
            return swept_value_text(self.swept[key])
        value: Any = json.loads(self.canonical)
        for part in key.split("."):
            if not isinstance(value, dict) or part not in value:
                return None
            value = value[part]
        return swept_value_text(value)

    @property
    def evaluation(self) -> dict[str, int] | None:
        """Settings of the evaluation (see :attr:`Evaluate.settings`); None without evaluation."""
        return None if self.evaluate is None else self.evaluate.settings


def swept_value_label(key: str, value: Any) -> str:
    """Return a swept value in short form, such as ``random``, ``width=48`` or ``mlp width=16``.

    A string is returned unchanged. A mapping, such as a whole section, becomes the short forms of
    its items; a mapping within a mapping is preceded by its key, such as ``lora rank=4``. Any other
    value is preceded by the last part of the dotted key.
    """
    if is_tuning_request(value):
        return f"{key.split('.')[-1] or 'tune'}={value['tune']}"
    if isinstance(value, dict):
        texts = []
        for inner, v in value.items():
            text = swept_value_label(f"{key}.{inner}", v)
            if "." in key and isinstance(v, str):
                text = f"{inner}={v}"
            elif isinstance(v, dict) and not is_tuning_request(v):
                text = f"{inner} {text}"
            texts.append(text)
        return " ".join(texts)
    return value if isinstance(value, str) else f"{key.split('.')[-1]}={value}"


def swept_value_text(value: object) -> str:
    """Return a swept value as the text of a table cell: ``48``, ``random``, ``mlp width=16``."""
    if value is None:
        return ""
    return swept_value_label("", value) if isinstance(value, dict) else str(value)


_OMITTED_KEYS = {
    "labels", "family", "optimizer", "activation", "source", "name", "policy", "trainer",
}  # fmt: skip
"""Keys that are omitted from phrases, because their values are clear without the key."""


def value_phrase(key: str, value: object) -> str:
    """Return a swept value as a phrase in a sentence: ``random``, ``width 8``, ``inputs permuted``.

    The key is omitted if the value is clear without it, such as an optimizer or a whole section.
    """
    text, last = swept_value_text(value), key.split(".")[-1]
    section = "." not in key and not text[:1].isdigit()
    return text if last in _OMITTED_KEYS or section else f"{last} {text}"
