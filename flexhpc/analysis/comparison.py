"""The comparisons of a sweep: requested by its spec, or suggested by its swept keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import yaml

from flexhpc.analysis.decision import decide
from flexhpc.analysis.effect import SMALLER_BUDGETS, Effect, effects_of, with_verdicts
from flexhpc.analysis.figures.layout import SIZES, varied_keys
from flexhpc.config.sections.compare import Compare
from flexhpc.store.status import PointStatus

_MAX_VALUES, _MAX_POINTS = 12, 1000
"""Maximum number of values of the key, and of points, for a default comparison."""


def compare_points(statuses: Sequence[PointStatus], requests: Sequence[Compare]) -> list[Effect]:
    """Compare EMCs at the budget of each point, at half and at a quarter of this budget.

    Args:
        statuses: points of one or several runs.
        requests: the comparisons; see :func:`effects_of`, also for errors. A comparison with
            ``decide`` is shown as it was at its last look (:mod:`flexhpc.analysis.decision`).
    """
    at_budgets = [
        with_verdicts([e for request in requests for e in effects_of(statuses, request, factor)])
        for factor in (1.0, *SMALLER_BUDGETS.values())
    ]
    smaller: dict[tuple[str, ...], list[Effect]] = {}
    for effects in at_budgets[1:]:
        for effect in effects:
            smaller.setdefault(effect.key, []).append(effect)
    shown = {effect.key: effect for effect in at_budgets[0]}
    for request in requests:
        if request.decide:
            for effect in effects_of(statuses, request):  # before its first look, it has no verdict
                shown[effect.key] = effect
            shown |= {effect.key: effect for effect in decide(statuses, request).effects}
    return [replace(e, smaller=tuple(smaller.get(key, ()))) for key, e in shown.items()]


def comparisons(statuses: Sequence[PointStatus], specs: Sequence[str]) -> list[Effect]:
    """Make the comparisons that frozen specs request, by default the suggested one.

    The suggested comparison is omitted if it has no pairs.

    Args:
        statuses: all points; specs: text of the frozen specs.
    """
    requested = {c.model_dump_json(): c for text in specs for c in requested_comparisons(text)}
    if requested:
        return compare_points(statuses, list(requested.values()))
    default = suggested_comparison(statuses)
    by_default = compare_points(statuses, [default]) if default else []
    return by_default if any(effect.pairs for effect in by_default) else []


def requested_comparisons(spec: str) -> list[Compare]:
    """Return the comparisons in the ``compare`` section of the text of a frozen spec."""
    lines = spec.splitlines()
    if not any(line.startswith("compare:") for line in lines):
        return []  # most specs have no such section, and parsing a long spec takes a second
    return [Compare.model_validate(entry) for entry in yaml.safe_load(spec)["compare"]]


def decision_texts(statuses: Sequence[PointStatus], specs: Sequence[str]) -> list[str]:
    """Describe the state of each requested comparison that has the key ``decide``."""
    requests = [compare for text in specs for compare in requested_comparisons(text)]
    return [decide(statuses, compare).text for compare in requests if compare.decide]


def suggested_comparison(statuses: Sequence[PointStatus]) -> Compare | None:
    """Suggest a comparison of the points of a sweep; None without a suitable key.

    A key is suitable if it has 2 to ``_MAX_VALUES`` values, is not an x axis, and is the only such
    key that is neither a data key nor a size. If there are only data keys, labels are compared.
    """
    if len(statuses) > _MAX_POINTS:
        return None
    kinds = [key for key in varied_keys(statuses) if key.split(".")[-1] not in SIZES]
    few = [k for k in kinds if 1 < len({s.point.value(k) for s in statuses}) <= _MAX_VALUES]
    of_data = [key for key in few if key.startswith("data.")]
    others = [key for key in few if key not in of_data]
    if len(others) == 1 and not _is_axis(statuses, others[0]):
        return Compare(by=others[0])
    if not others and "data.labels" in of_data:
        return Compare(by="data.labels", within=[k for k in of_data if k != "data.labels"])
    return None


def _is_axis(statuses: Sequence[PointStatus], key: str) -> bool:
    """Return whether a key has more than two numeric values, so that it is an x axis."""
    values = [s.point.swept.get(key) for s in statuses]
    numbers = {v for v in values if isinstance(v, int | float) and not isinstance(v, bool)}
    return len(numbers) > 2
