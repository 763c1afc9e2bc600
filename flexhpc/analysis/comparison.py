"""Comparisons between the points of a sweep: requested by its spec, or suggested from its keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

import yaml

from flexhpc.analysis.decision import Decision, decide
from flexhpc.analysis.effect import SMALLER_BUDGETS, Effect, effects_of, with_verdicts
from flexhpc.analysis.figures.layout import is_number, varied_keys, without_size_and_seed_keys
from flexhpc.analysis.likelihood import likelihood_at_budget
from flexhpc.analysis.results import budget_value
from flexhpc.config.sections.compare import Compare
from flexhpc.search.history import Floats
from flexhpc.store.status import PointStatus

_MAX_VALUES, _MAX_POINTS = 12, 1000
"""Maximum number of compared values for which a comparison is suggested, and maximum number of
points for which a comparison is suggested or repeated at other budgets."""
BUDGET_FRACTIONS = tuple(2.0**-doublings for doublings in range(7))
"""Fractions of the largest budget at which EMCs are compared."""


@dataclass(frozen=True, kw_only=True)
class Comparisons:
    """Comparisons of the points of one or several runs.

    Attributes:
        requests: entries of the section ``compare`` of the specs, or the suggested comparison.
        effects: the comparisons, each with its ratio and its verdict.
        decisions: for each entry of ``compare`` with the key ``decide``, the state of its
            comparisons.
    """

    requests: Sequence[Compare] = ()
    effects: Sequence[Effect] = ()
    decisions: Sequence[Decision] = ()


def compare_points(statuses: Sequence[PointStatus], requests: Sequence[Compare]) -> Comparisons:
    """Compare EMCs at the budget of each point, at half and at a quarter of this budget.

    Args:
        statuses: points of one or several runs.
        requests: entries of the section ``compare`` of a spec. The comparisons of an entry with
            ``decide`` are returned as they were after their last round
            (:mod:`flexhpc.analysis.decision`).

    Raises:
        InputError: no point has a requested key or baseline, or ``within`` contains the compared
            key.
    """
    at_budget = [effects_of(statuses, request) for request in requests]
    effects = {effect.key: effect for effect in with_verdicts(_without_repeats(at_budget))}
    decisions = []
    for request, without_verdicts in zip(requests, at_budget, strict=True):
        if request.decide:
            decision = decide(statuses, request)
            effects |= {e.key: e for e in (*without_verdicts, *decision.effects)}
            decisions.append(decision)
    smaller: dict[tuple[str, ...], dict[str, Effect]] = {}
    for name, factor in SMALLER_BUDGETS.items():
        likelihood = partial(likelihood_at_budget, factor=factor)
        at_factor = [effects_of(statuses, request, likelihood) for request in requests]
        for effect in with_verdicts(_without_repeats(at_factor)):
            smaller.setdefault(effect.key, {})[name] = effect
    return Comparisons(
        requests=requests,
        effects=[
            replace(effect, at_smaller_budgets=smaller.get(key, {}))
            for key, effect in effects.items()
        ],
        decisions=decisions,
    )


def _without_repeats(effects: Sequence[Sequence[Effect]]) -> list[Effect]:
    """Join lists of comparisons; a comparison that several lists contain is listed once."""
    return list({effect.key: effect for effect in chain(*effects)}.values())


def compare_at_budgets(
    statuses: Sequence[PointStatus], requests: Sequence[Compare]
) -> dict[float, list[Effect]]:
    """Compare EMCs at equal budgets, from the largest budget of the points to 1/64 of it.

    A saturated point has the same EMC at all larger budgets. Comparisons at a smaller budget are
    omitted if the EMC of any of their points is unknown there.

    Args:
        statuses: points of one or several runs.
        requests: entries of the section ``compare`` of a spec; the key ``decide`` has no effect.

    Returns:
        A dict from each fraction of the largest budget to the comparisons. For points whose budgets
        have different units, it is a fraction of the largest budget in the same unit. Empty if any
        point has no budget, or for more than ``_MAX_POINTS`` points.
    """
    if len(statuses) > _MAX_POINTS:
        return {}
    largest: dict[str, int] = {}
    for status in statuses:
        if status.point.training.budget is None:
            return {}
        unit, _ = status.point.training.budget
        largest[unit] = max(largest.get(unit, 0), budget_value(status))

    def likelihood(status: PointStatus, fraction: float) -> Floats | None:
        assert status.point.training.budget is not None
        unit, _ = status.point.training.budget
        factor = fraction * largest[unit] / budget_value(status)
        if factor > 1 and status.estimate and status.estimate.saturated == "yes":
            factor = 1.0
        return likelihood_at_budget(status, factor) if factor <= 1 else None

    at_budgets = {
        fraction: list(chain.from_iterable(
            effects_of(statuses, request, partial(likelihood, fraction=fraction))
            for request in requests
        ))
        for fraction in BUDGET_FRACTIONS
    }  # fmt: skip
    pairs: dict[tuple[str, ...], int] = {}
    for effect in chain.from_iterable(at_budgets.values()):
        pairs[effect.key] = max(effect.pairs, pairs.get(effect.key, 0))
    return {
        fraction: with_verdicts([e for e in effects if e.pairs == pairs[e.key]])
        for fraction, effects in at_budgets.items()
    }


def compare_as_specified(statuses: Sequence[PointStatus], specs: Sequence[str]) -> Comparisons:
    """Return the comparisons that the specs request; if they request none, a suggested comparison.

    The suggested comparison (:func:`suggested_comparison`) is omitted if it has no pairs.

    Args:
        statuses: all points of one or several runs.
        specs: frozen specs of the runs, as YAML texts.
    """
    requested = {c.model_dump_json(): c for text in specs for c in requested_comparisons(text)}
    if requested:
        return compare_points(statuses, list(requested.values()))
    default = suggested_comparison(statuses)
    result = compare_points(statuses, [default] if default else [])
    has_pairs = any(effect.pairs for effect in result.effects)
    return result if has_pairs else Comparisons()


def requested_comparisons(spec: str) -> list[Compare]:
    """Return the entries of the section ``compare`` of a frozen spec, which is a YAML text."""
    lines = spec.splitlines()
    if not any(line.startswith("compare:") for line in lines):
        return []  # most specs have no such section, and parsing a long spec takes a second
    return [Compare.model_validate(entry) for entry in yaml.safe_load(spec)["compare"]]


def suggested_comparison(statuses: Sequence[PointStatus]) -> Compare | None:
    """Suggest a key to compare in a sweep; return None if no key is suitable.

    Candidates are the swept keys with 2 to ``_MAX_VALUES`` values, except the seed and the keys
    that set the network size. If exactly one candidate is not a data key, this candidate is
    compared, unless figures use it as the x axis. If all candidates are data keys and
    ``data.labels`` is a candidate, ``data.labels`` is compared. For more than ``_MAX_POINTS``
    points, return None.
    """
    if len(statuses) > _MAX_POINTS:
        return None
    keys = [
        key
        for key in without_size_and_seed_keys(varied_keys(statuses))
        if 1 < len({status.point.value_text(key) for status in statuses}) <= _MAX_VALUES
    ]
    data_keys = [key for key in keys if key.startswith("data.")]
    others = [key for key in keys if key not in data_keys]
    if len(others) == 1:
        values = [status.point.swept.get(others[0]) for status in statuses]
        # Figures use a key with more than two numeric values as x axis.
        if len({value for value in values if is_number(value)}) <= 2:
            return Compare(by=others[0])
    if not others and "data.labels" in data_keys:
        return Compare(by="data.labels", within=[k for k in data_keys if k != "data.labels"])
    return None
