"""Ratios of EMCs at two values of a key, with intervals and verdicts.

A pair consists of two points that differ only in the compared key and in keys that depend on it,
so both points usually have the same size and seed. A censored EMC contributes to a ratio as a
bound.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtri

from flexhpc.analysis.grouping import swept_keys
from flexhpc.analysis.likelihood import (
    SAME_MARGIN,
    MeanRatio,
    likelihood_of,
    mean_ratio,
    ratio_likelihood,
)
from flexhpc.analysis.text import without_shared_entries
from flexhpc.config.point import swept_value_text, value_phrase
from flexhpc.config.sections.compare import Compare
from flexhpc.errors import InputError
from flexhpc.search.history import LEVEL, Floats
from flexhpc.store.status import PointStatus

ERROR_RATE = 0.05
"""Family-wise error rate of all verdicts. Half of it is spent on verdicts that two EMCs differ, and
half on verdicts that they are the same."""
_MIN_DISTANCE = 0.0001
"""Smallest distance of a probability to 0 or 1 that is printed exactly."""
_MIN_DIFFERENCE = 0.02
"""A ratio counts as above or below 1 only if it differs from 1 by more than this value."""
SMALLER_BUDGETS = {"B/4": 0.25, "B/2": 0.5}
"""Multiples of the budget B at which comparisons are repeated, by display name."""


@dataclass(frozen=True, kw_only=True)
class Effect(MeanRatio):
    """Ratio of the EMC at one value of a key to the EMC at the baseline value of this key.

    Attributes:
        by: compared key.
        value, baseline: the two values of the compared key.
        within: dict from each grouping key to its value.
        pairs: number of pairs.
        bounds: number of uninformative pairs, in which both EMCs are lower bounds, or both are
            upper bounds.
        unpaired: number of points at ``value`` without a counterpart at the baseline.
        distinct_sizes: whether all sizes have different numbers of parameters.
        margin: largest relative difference at which two EMCs count as the same.
        verdict: ``larger``, ``smaller``, ``not decided`` or ``the same within 10 %``, where 10 % is
            ``margin``. The family-wise error rate of all comparisons is 5 % or ``decide.error``
            (Holm 1979).
        at_this_budget: whether the verdict applies to this budget only, because at least one of
            the compared points is not known to be saturated.
        at_smaller_budgets: dict from ``B/4`` and ``B/2`` to the comparison at a quarter and at half
            of the budget of every point. Budgets at which all EMCs are unknown are omitted.
        more_pairs: estimated number of additional pairs needed for a verdict; None if there is a
            verdict, or if no estimate is possible.
    """

    by: str
    value: str
    baseline: str
    within: Mapping[str, str]
    pairs: int
    bounds: int
    unpaired: int
    distinct_sizes: bool = False
    margin: float = SAME_MARGIN
    verdict: str = "not decided"
    at_this_budget: bool = False
    at_smaller_budgets: Mapping[str, Effect] = field(default_factory=dict)
    more_pairs: int | None = None

    @property
    def key(self) -> tuple[str, ...]:
        """Values that identify the comparison among all comparisons of the same points."""
        within = chain(*self.within.items())
        return self.by, self.value, self.baseline, str(self.margin), *within

    @property
    def within_text(self) -> str:
        """The values of the grouping keys as text, for example ``random, steps 2000``."""
        return ", ".join(value_phrase(key, value) for key, value in self.within.items() if value)

    @property
    def qualified_verdict(self) -> str:
        """The verdict; "at this budget" is added if any point is not known to be saturated."""
        is_limited = self.at_this_budget and self.verdict != "not decided"
        return f"{self.verdict} at this budget" if is_limited else self.verdict

    @property
    def verdict_text(self) -> str:
        """The verdict in words.

        Without a verdict, the text states the reason or the number of additional pairs needed. With
        a verdict, "at this budget" is added if any point is not known to be saturated, and a
        verdict at a smaller budget is added if it differs.
        """
        if self.verdict != "not decided":
            others = [
                f"{effect.verdict} at {name}"
                for name, effect in self.at_smaller_budgets.items()
                if effect.verdict != self.verdict
            ]
            return "; ".join([self.qualified_verdict, *others])
        if not self.pairs:
            return "no pairs"
        if self.pairs == self.bounds:
            return "not decided: both EMCs are bounds"
        if self.low is None or self.high is None:
            return "not decided: the ratio is a bound"
        if self.more_pairs is None:
            return self.verdict
        noun = "pair" if self.more_pairs == 1 else "pairs"
        return f"not decided (needs {self.more_pairs:,} more {noun})"

    @property
    def text(self) -> str:
        """The comparison in words: ``gelu against relu: larger, ratio 1.52 [1.31, 1.77]``."""
        names = " ".join((self.value, "against", self.baseline, self.within_text))
        ratio = f", ratio {self.ratio_text}" if self.ratio_text else ""
        return f"{names.strip()}: {self.verdict}{ratio}"

    @property
    def ratio_text(self) -> str:
        """The ratio with its interval: ``1.52 [1.31, 1.77]``; for a bound: ``>= 1.3``."""
        if self.low is None:
            return "" if self.high is None else f"<= {self.high:.3g}"
        if self.high is None:
            return f">= {self.low:.3g}"
        return f"{self.ratio:.2f} [{self.low:.2f}, {self.high:.2f}]"

    @property
    def chance_text(self) -> str:
        """The probability that the ratio is above 1, as text; see :func:`chance_text`."""
        return chance_text(self.chance_larger)

    @property
    def pairs_text(self) -> str:
        """The number of pairs: ``15``, ``2 (3 unpaired)``, ``15 (4 uninformative)``.

        A pair is uninformative if both EMCs are lower bounds, or both are upper bounds.
        """
        counts = ((self.bounds, "uninformative"), (self.unpaired, "unpaired"))
        notes = ", ".join(f"{count} {kind}" for count, kind in counts if count)
        return f"{self.pairs} ({notes})" if notes else str(self.pairs)

    @property
    def min_ratio(self) -> float:
        """The smallest ratio at a network size; nan if the ratio at any size is a bound."""
        return float(np.min(self.size_ratios)) if self.size_ratios else math.nan

    @property
    def max_ratio(self) -> float:
        """The largest ratio at a network size; nan if the ratio at any size is a bound."""
        return float(np.max(self.size_ratios)) if self.size_ratios else math.nan

    @property
    def sizes_text(self) -> str:
        """The smallest and the largest ratio at a network size: ``1.31 to 1.77``.

        Empty for fewer than two sizes, or if the ratio at any size is a bound.
        """
        if len(self.size_ratios) < 2 or math.isnan(self.min_ratio):
            return ""
        return f"{self.min_ratio:.2f} to {self.max_ratio:.2f}"

    @property
    def reversal_text(self) -> str:
        """The ratios at different network sizes, if some ratios are below 1 and some are above 1.

        Empty otherwise, and if the ratio at any size is a bound.
        """
        if not _lie_on_both_sides_of_one(self.min_ratio, self.max_ratio):
            return ""
        first, last = self.size_ratios[0], self.size_ratios[-1]
        if self.distinct_sizes and _lie_on_both_sides_of_one(*sorted((first, last))):
            return f"{first:.2f} at the smallest size, {last:.2f} at the largest"
        return f"{self.sizes_text} depending on the size"

    def as_row(self) -> dict[str, Any]:
        """Return the comparison as a dict of columns; unknown values and open ends are None."""
        row = {
            "by": self.by, "value": self.value, "baseline": self.baseline, **self.within,
            "ratio": self.ratio, "ratio_lo": self.low, "ratio_hi": self.high, "level": LEVEL,
            "smallest_size_ratio": self.min_ratio, "largest_size_ratio": self.max_ratio,
            "chance_larger": self.chance_larger, "chance_same": self.chance_same,
            "verdict": self.verdict, "pairs": self.pairs, "pairs_of_bounds": self.bounds,
            "unpaired": self.unpaired, "scatter": self.scatter, "more_pairs": self.more_pairs,
            "at_this_budget": self.at_this_budget,
            "same_verdict_at_all_budgets":
            all(effect.verdict == self.verdict for effect in self.at_smaller_budgets.values())
            if self.at_smaller_budgets else None,
        }  # fmt: skip
        for budget, effect in self.at_smaller_budgets.items():
            name = {"B/4": "quarter", "B/2": "half"}[budget]
            row |= {
                f"ratio_at_{name}": effect.ratio, f"ratio_at_{name}_lo": effect.low,
                f"ratio_at_{name}_hi": effect.high, f"verdict_at_{name}": effect.verdict,
            }  # fmt: skip
        return {key: None if value != value else value for key, value in row.items()}


def _lie_on_both_sides_of_one(low: float, high: float) -> bool:
    """Return whether ``low`` is clearly below 1 and ``high`` clearly above 1; False for nan."""
    return low < 1 - _MIN_DIFFERENCE and high > 1 + _MIN_DIFFERENCE


def effects_of(
    statuses: Sequence[PointStatus],
    compare: Compare,
    likelihood: Callable[[PointStatus], Floats | None] | None = None,
    pairing: Pairing | None = None,
) -> list[Effect]:
    """Compare the EMCs at each value of a key with the EMCs at its baseline value.

    The verdicts depend on all comparisons together; :func:`with_verdicts` sets them afterwards.

    Args:
        statuses: points of one or several runs; those without an estimate only contribute their
            swept keys and values.
        compare: the compared key, its baseline (by default the value of the first point) and the
            grouping keys (by default the swept data keys). EMCs are compared separately for each
            combination of values of the grouping keys.
        likelihood: function that takes a point and returns the likelihood of log EMC, (cells,), or
            None to omit the point; by default :func:`flexhpc.analysis.likelihood.likelihood_of`.
        pairing: rule that pairs the points; by default derived from ``statuses``.

    Returns:
        One effect for each combination of grouping values and each value except the baseline. An
        empty list unless points at the baseline and at another value were measured.

    Raises:
        InputError: no point has the compared key, the baseline or a key of ``within``; or
            ``within`` contains the compared key.
    """
    pairing = pairing or Pairing(statuses, compare)
    baseline = pairing.baseline
    points: dict[PairKey, dict[str, _MeasuredPoint]] = {}  # by pair, then by compared value
    for status in statuses:
        value, estimate, record = pairing.compared_value(status), status.estimate, status.record
        if value is not None and estimate is not None and record is not None:
            likelihood_of_point = (likelihood or likelihood_of)(status)
            if likelihood_of_point is not None:
                has_budget = status.point.training.budget is not None
                depends_on_budget = has_budget and estimate.saturated != "yes"
                params = record.header.params
                measured = _MeasuredPoint(likelihood_of_point, params, depends_on_budget)
                points.setdefault(pairing.pair_key(status), {}).setdefault(value, measured)
    values = {value for by_value in points.values() for value in by_value}
    if baseline not in values or len(values) < 2:
        return []
    effects = []
    for group in dict.fromkeys(pair.group for pair in points):
        for value, name in pairing.names.items():
            with_value = [
                (pair.size, by_value)
                for pair, by_value in points.items()
                if pair.group == group and value in by_value
            ]
            if value == baseline or not with_value:
                continue
            pairs = [
                (size, by_value[value], by_value[baseline])
                for size, by_value in with_value
                if baseline in by_value
            ]
            effects.append(Effect(
                **_compare_pairs(pairs, pairing.margin), unpaired=len(with_value) - len(pairs),
                by=compare.by, value=name, baseline=pairing.names[baseline], within=dict(group),
                margin=pairing.margin,
            ))  # fmt: skip
    return effects


class _MeasuredPoint(NamedTuple):
    """A measured point of a pair.

    Attributes:
        likelihood: likelihood of log EMC, shape (cells,).
        params: number of parameters.
        depends_on_budget: whether the point has a budget and is not known to be saturated.
    """

    likelihood: Floats
    params: int
    depends_on_budget: bool


def _compare_pairs(
    pairs: Sequence[tuple[str, _MeasuredPoint, _MeasuredPoint]], margin: float
) -> dict[str, Any]:
    """Return the fields of :class:`Effect` that depend on the EMCs.

    Args:
        pairs: for each pair, its size (see :class:`PairKey`), and the points at the compared value
            and at the baseline.
        margin: largest relative difference at which two EMCs count as the same.
    """
    ratios: dict[str, list[Floats]] = {}
    params: dict[str, int] = {}
    for size, point, at_baseline in pairs:
        ratio = ratio_likelihood(point.likelihood, at_baseline.likelihood)
        if ratio is not None:
            ratios.setdefault(size, []).append(ratio)
            params[size] = at_baseline.params
    sizes = [ratios[size] for size in sorted(ratios, key=params.__getitem__)]
    mean = mean_ratio(sizes, margin) if sizes else MeanRatio()
    return {
        **vars(mean), "pairs": len(pairs), "bounds": len(pairs) - sum(map(len, sizes)),
        "distinct_sizes": len(set(params.values())) == len(sizes),
        "at_this_budget": any(a.depends_on_budget or b.depends_on_budget for _, a, b in pairs),
    }  # fmt: skip


GroupKey = tuple[tuple[str, str], ...]
"""Pairs (grouping key, value), one for each grouping key."""


class PairKey(NamedTuple):
    """Values that the points of a pair have in common.

    Attributes:
        group: values of the grouping keys.
        size: JSON list of the values of all other varying keys, which mostly set the network size.
        seed: the seed; None if seeds are compared.
    """

    group: GroupKey
    size: str
    seed: int | None


class Pairing:
    """Rule that pairs points which differ only in the compared key.

    Attributes:
        names: display text of each value of the compared key.
        baseline: the value with which all other values are compared.
        margin: largest relative difference at which two EMCs count as the same.
    """

    def __init__(self, statuses: Sequence[PointStatus], compare: Compare) -> None:
        self._value = {id(s.point): s.point.value_text(compare.by) for s in statuses}
        self.names = {
            value: short.point.value_text(compare.by) or value
            for status, short in zip(statuses, without_shared_entries(statuses), strict=True)
            if (value := self.compared_value(status)) is not None
        }
        swept = swept_keys(statuses)
        if statuses and not self.names:
            listed = ", ".join(swept) or "none"
            raise InputError(f"{compare.by}: no point has this key; swept keys: {listed}")
        self.baseline = _baseline_value(self.names, compare)
        self.margin = SAME_MARGIN if compare.decide is None else compare.decide.margin
        self._within = grouping_keys(statuses, compare)
        for key in self._within:
            if key == compare.by:
                raise InputError(
                    f"{key}: the compared key cannot be in within; remove it from within"
                )
            if all(s.point.value_text(key) is None for s in statuses):
                raise InputError(f"{key}: no point has this key; swept keys: {', '.join(swept)}")
        # Only keys that vary among points with the same compared value must be equal within a pair.
        # Optimizers with different learning rates, or families with different widths, can therefore
        # be compared.
        self._texts: list[dict[int, str]] = []
        for key in swept:
            if key not in (compare.by, "seed", *self._within):
                texts = {id(s.point): s.point.value_text(key) or "" for s in statuses}
                combinations = set(zip(self._value.values(), texts.values(), strict=True))
                if len(combinations) > len(set(self._value.values())):
                    self._texts.append(texts)
        self._by = compare.by

    def compared_value(self, status: PointStatus) -> str | None:
        """Return a point's value of the compared key; None if the point does not have this key."""
        return self._value[id(status.point)]

    def effect_key(self, value: str, group: GroupKey) -> tuple[str, ...]:
        """Return the key (``Effect.key``) for comparing ``value`` with the baseline in a group."""
        names = self.names[value], self.names[self.baseline]
        return self._by, *names, str(self.margin), *chain(*group)

    def pair_key(self, status: PointStatus) -> PairKey:
        """Return the values that a point has in common with the other points of its pair."""
        group = tuple((key, status.point.value_text(key) or "") for key in self._within)
        size = [texts[id(status.point)] for texts in self._texts]
        return PairKey(group, json.dumps(size), None if self._by == "seed" else status.point.seed)


def _baseline_value(names: Mapping[str, str], compare: Compare) -> str:
    """Return the baseline value of the compared key.

    Raises:
        InputError: no point has the requested baseline.
    """
    if compare.baseline is None:
        return next(iter(names), "")
    text = swept_value_text(compare.baseline)
    for value, name in names.items():
        if text in (value, name) or _float_or_none(text) == _float_or_none(value) is not None:
            return value
    listed = ", ".join(names.values())
    raise InputError(f"baseline {text}: no point has {compare.by} {text}; use one of {listed}")


def _float_or_none(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def grouping_keys(statuses: Sequence[PointStatus], compare: Compare) -> list[str]:
    """Return the grouping keys: ``compare.within`` if it is set; otherwise all swept data keys
    except the key ``compare.by``."""
    if compare.within is not None:
        return list(compare.within)
    keys = swept_keys(statuses)
    return [key for key in keys if key.split(".")[0] == "data" and key != compare.by]


def with_verdicts(
    effects: Sequence[Effect], error_rate: float = ERROR_RATE,
    test_level: Callable[[float], float] = lambda error_rate: error_rate, without_ratio: int = 0,
) -> list[Effect]:  # fmt: skip
    """Return the comparisons with verdicts, corrected for multiple comparisons (Holm 1979).

    Args:
        effects: the comparisons.
        error_rate: maximum probability that at least one verdict is wrong. Half of it is spent on
            verdicts that two EMCs differ, half on verdicts that they are the same.
        test_level: function that takes the error rate of a one-sided test and returns its
            significance level in this evaluation. The level is lower than the error rate if the
            comparisons are evaluated several times.
        without_ratio: number of comparisons without a ratio that the correction includes.
    """
    tests = sum(effect.pairs > effect.bounds for effect in effects) + without_ratio
    # Without a ratio, chance_larger is 0.5 and chance_same is 0, so nothing is rejected.
    p_values = [min(effect.chance_larger, 1 - effect.chance_larger) for effect in effects]
    differ = _holm_rejections(p_values, error_rate / 4, test_level, tests)
    p_values = [1 - effect.chance_same for effect in effects]
    same = _holm_rejections(p_values, error_rate / 2, test_level, tests)
    rate_per_test = error_rate / max(1, tests)
    levels = test_level(rate_per_test / 4), test_level(rate_per_test / 2)
    result = []
    for effect, differs, is_same in zip(effects, differ, same, strict=True):
        verdict, more_pairs = "not decided", None
        if is_same:
            verdict = f"the same within {100 * effect.margin:g} %"
        elif differs:
            verdict = "larger" if effect.chance_larger > 0.5 else "smaller"
        else:
            more_pairs = _estimate_more_pairs(effect, *levels)
        result.append(replace(effect, verdict=verdict, more_pairs=more_pairs))
    return result


def sufficient_chance(tests: int) -> float:
    """Return P(larger) from which :func:`with_verdicts` always decides that two EMCs differ.

    If other comparisons are decided, a smaller value is sufficient.

    Args:
        tests: number of comparisons with a ratio.
    """
    return 1 - ERROR_RATE / (4 * tests)


def chance_text(chance: float) -> str:
    """Format a probability with two digits of its distance to 0 or 1: ``0.42``, ``0.9938``."""
    distance = min(chance, 1 - chance)
    if distance < _MIN_DISTANCE:
        return f"> {1 - _MIN_DISTANCE}" if chance > 0.5 else f"< {_MIN_DISTANCE}"
    return f"{chance:.{1 - math.floor(math.log10(distance))}f}"


def _holm_rejections(
    p_values: Sequence[float], error_rate: float, test_level: Callable[[float], float], tests: int
) -> list[bool]:
    """Return for each hypothesis whether it is rejected at a family-wise error rate (Holm 1979).

    Args:
        p_values: one-sided p-value of each hypothesis; at least 0.5 for a comparison without a
            ratio, whose hypothesis is never rejected.
        error_rate: family-wise error rate, below 0.5.
        test_level: function that takes the error rate of a test and returns its significance level.
        tests: number of hypotheses for which the error rate is corrected.
    """
    order = np.argsort(p_values, kind="stable")
    rejected = [False] * len(p_values)
    for rank, index in enumerate(order):
        if rank == tests or p_values[index] > test_level(error_rate / (tests - rank)):
            break
        rejected[index] = True
    return rejected


def _estimate_more_pairs(effect: Effect, differ_level: float, same_level: float) -> int | None:
    """Estimate how many more pairs a verdict needs; return None if this is unknown.

    The estimate assumes that the width of intervals is proportional to 1 / sqrt(pairs).

    Args:
        effect: the comparison.
        differ_level: significance level of the test that two EMCs differ.
        same_level: significance level of the test that two EMCs are the same.
    """
    pairs = effect.pairs - effect.bounds
    if effect.low is None or effect.high is None or not pairs:
        return None
    deviation = math.log(effect.high / effect.low) / (2 * ndtri((1 + LEVEL) / 2))
    log_ratio = abs(math.log(effect.ratio))
    needed = math.inf
    same_distance = math.log1p(effect.margin) - log_ratio
    for distance, level in ((log_ratio, differ_level), (same_distance, same_level)):
        if distance > 0:
            needed = min(needed, pairs * (ndtri(level) * deviation / distance) ** 2)
    return max(math.ceil(needed) - pairs, 1)
