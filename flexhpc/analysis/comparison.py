"""Ratios of EMCs between the values of a key, with intervals and verdicts.

Two points are a pair if they differ in the compared key only: same size, same seed. A censored EMC
enters as a bound.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import yaml

from flexhpc.analysis.figures.layout import SIZES, varied_keys
from flexhpc.analysis.likelihood import Floats, likelihood_of, of_ratio
from flexhpc.analysis.mean_ratio import SAME, mean_ratio
from flexhpc.analysis.trimmed import trimmed
from flexhpc.config.point import named, plain_text
from flexhpc.config.sections.compare import Compare
from flexhpc.errors import InputError
from flexhpc.search.history import LEVEL
from flexhpc.store.status import PointStatus

WRONG = 0.05
"""Accepted probability of a wrong verdict, over all comparisons made together: one half for the
verdicts that two EMCs differ, one half for the verdicts that they are the same."""
_MOST_PAIRS = 1000
_MOST_VALUES, _MOST_POINTS = 12, 1000
"""Maximum numbers of values of a key, and of points, for a comparison that no spec requests."""

_ROUNDING = 0.02
"""Minimum distance from 1 at which the ratio of one size counts as above or below 1."""
Verdict = Literal["larger", "smaller", "the same within 10 %", "not decided"]


@dataclass(frozen=True, kw_only=True)
class Effect:
    """Ratio of the EMC at one value of a key to the EMC at another value.

    Attributes:
        by: compared key; value, baseline: its two values; within: values of the grouping keys.
        pairs: number of pairs; silent: pairs that carry no information, as both EMCs are bounds on
            the same side; alone: points at ``value`` without a counterpart at the baseline.
        ratio: geometric mean over the measured sizes, nan where an end of its interval is open;
            low, high: its interval, which includes the variation between seeds; None where it is
            open.
        singles: ratio of each size, nan where it is a bound; growing: whether they are in strictly
            ascending order of parameters.
        level: probability of the interval.
        chance: probability that the ratio is above 1; same: that it is within 10 % of 1.
        scatter: standard deviation of the log ratio between seeds, beyond the uncertainty of the
            single EMCs.
        verdict: at an error rate of 5 % over all comparisons together (Holm 1979).
        more: additional pairs needed for a verdict, if they scatter as the measured ones do; None
            if none are needed, or more than 1,000.
    """

    by: str
    value: str
    baseline: str
    within: Mapping[str, str]
    pairs: int
    silent: int
    alone: int
    ratio: float = math.nan
    low: float | None = None
    high: float | None = None
    singles: tuple[float, ...] = ()
    growing: bool = False
    level: float
    chance: float = 0.5
    same: float = 0.0
    scatter: float = 0.0
    verdict: Verdict = "not decided"
    more: int | None = None

    @property
    def wrong(self) -> float:
        """Two-sided error probability: twice that of the ratio lying on the other side of 1."""
        return 2 * min(self.chance, 1 - self.chance)

    @property
    def within_text(self) -> str:
        """The values of the grouping keys: ``random``, ``steps 2000``."""
        return ", ".join(named(key, value) for key, value in self.within.items() if value)

    @property
    def verdict_text(self) -> str:
        """The verdict in words; if there is none, the reason or the number of pairs needed."""
        if self.verdict != "not decided":
            return self.verdict
        if not self.pairs:
            return "no pairs"
        if self.pairs == self.silent:
            return "not decided: both are bounds"
        if self.more is None:
            return f"not decided (more than {_MOST_PAIRS:,} pairs would)"
        return f"not decided ({self.more} more {'pair' if self.more == 1 else 'pairs'} would)"

    @property
    def ratio_text(self) -> str:
        """The ratio with its interval: ``1.52 [1.31, 1.77]``, ``>= 1.3``."""
        if self.low is None:
            return "" if self.high is None else f"<= {self.high:.3g}"
        if self.high is None:
            return f">= {self.low:.3g}"
        return f"{self.ratio:.2f} [{self.low:.2f}, {self.high:.2f}]"

    @property
    def chance_text(self) -> str:
        """The probability that the ratio is above 1; never shown as exactly 0 or 1."""
        if 0.001 <= self.chance <= 0.999:
            return f"{self.chance:.3g}"
        return "" if not self.pairs else ("> 0.999" if self.chance > 0.5 else "< 0.001")

    @property
    def least(self) -> float:
        """The smallest ratio of a single size, nan if any of them is a bound."""
        return math.nan if math.isnan(sum(self.singles)) else min(self.singles, default=math.nan)

    @property
    def most(self) -> float:
        """The largest ratio of a single size, nan if any of them is a bound."""
        return math.nan if math.isnan(sum(self.singles)) else max(self.singles, default=math.nan)

    @property
    def sizes_text(self) -> str:
        """The range of ratios of single sizes; empty for fewer than two, or if one is a bound."""
        if len(self.singles) < 2 or math.isnan(self.least):
            return ""
        return f"{self.least:.2f} to {self.most:.2f}"

    @property
    def turns(self) -> str:
        """The ratios by size if they lie on both sides of 1, which the mean hides; else empty."""
        if not _on_both_sides(self.least, self.most):
            return ""
        first, last = self.singles[0], self.singles[-1]
        if self.growing and _on_both_sides(*sorted((first, last))):
            return f"{first:.2f} at the smallest size, {last:.2f} at the largest"
        return f"{self.sizes_text} by size"


def _on_both_sides(low: float, high: float) -> bool:
    """Return whether 1 lies between two ratios, beyond rounding; False if either is nan."""
    return low < 1 - _ROUNDING and high > 1 + _ROUNDING


def effects(statuses: Sequence[PointStatus], asked: Compare, level: float = LEVEL) -> list[Effect]:
    """Compare the EMCs at each value of a key with those at its baseline.

    Verdicts depend on all comparisons together, so they are set by :func:`decided`.

    Args:
        statuses: points of one or several runs; those without an estimate only contribute their
            swept keys and values.
        asked: compared key, baseline (by default the value of the first point) and grouping keys,
            each combination of whose values is compared separately (by default the swept keys of
            the data).
        level: probability of the intervals.

    Returns:
        One effect per combination of grouping values and value of the key; none if the baseline
        was not measured, or no other value.

    Raises:
        InputError: no point has the key, the baseline or a key of ``within``.
    """
    table = _Table(statuses, asked)
    measured = [s for s in statuses if s.estimate is not None and s.record is not None]
    there = {value for s in measured if (value := table.value[id(s)]) is not None}
    if table.baseline not in there or len(there) < 2:
        return []
    units: dict[tuple[_Told, str, str], dict[str, PointStatus]] = {}
    for status in measured:
        if (value := table.value[id(status)]) is not None:
            units.setdefault(table.unit(status), {}).setdefault(value, status)
    likelihoods: dict[int, Floats] = {}

    def likelihood(status: PointStatus) -> Floats:
        if id(status) not in likelihoods:
            likelihoods[id(status)] = likelihood_of(status)
        return likelihoods[id(status)]

    found = []
    for told in dict.fromkeys(key[0] for key in units):
        for value in (one for one in table.names if one != table.baseline):
            own = {key: unit for key, unit in units.items() if key[0] == told and value in unit}
            if not own:
                continue
            sizes: dict[str, list[Floats]] = {}
            params: dict[str, int] = {}
            pairs = silent = 0
            for (_, size, _), unit in own.items():
                if table.baseline in unit:
                    pairs += 1
                    ratio = of_ratio(likelihood(unit[value]), likelihood(unit[table.baseline]))
                    if ratio is None:
                        silent += 1
                    else:
                        sizes.setdefault(size, []).append(ratio)
                        record = unit[table.baseline].record
                        params[size] = 0 if record is None else record.header.params
            made = Effect(
                by=asked.by, value=table.names[value], baseline=table.names[table.baseline],
                within=dict(told), pairs=pairs, silent=silent, alone=len(own) - pairs, level=level,
            )  # fmt: skip
            order = sorted(sizes, key=lambda size: params[size])
            known = vars(mean_ratio([sizes[size] for size in order], level)) if sizes else {}
            growing = len(set(params.values())) == len(sizes)
            found.append(replace(made, **known, growing=growing))
    return found


_Told = tuple[tuple[str, str], ...]


class _Table:
    """Pairing of the points of one or several sweeps.

    Attributes:
        value: value of the compared key by ``id(status)``, None where a point has none.
        names: display text of each value; baseline: one of these values.
    """

    def __init__(self, statuses: Sequence[PointStatus], asked: Compare) -> None:
        self.value = {id(s): s.point.value(asked.by) for s in statuses}
        self.names = {
            value: short.point.value(asked.by) or value
            for status, short in zip(statuses, trimmed(statuses), strict=True)
            if (value := self.value[id(status)]) is not None
        }
        swept = list(dict.fromkeys(key for s in statuses for key in s.point.swept))
        if statuses and not self.names:
            listed = ", ".join(swept) or "none"
            raise InputError(f"{asked.by}: no point has this key; swept are {listed}")
        self.baseline = _baseline(self.names, asked)
        self.within = within_of(statuses, asked)
        for key in self.within:
            if key == asked.by:
                raise InputError(f"{key}: is what is compared, so nothing is within it")
            if all(s.point.value(key) is None for s in statuses):
                raise InputError(f"{key}: no point has this key; swept are {', '.join(swept)}")
        free = [key for key in swept if key not in (asked.by, *self.within)]
        texts = {key: {id(s): s.point.value(key) or "" for s in statuses} for key in free}
        self._texts = {key: some for key, some in texts.items() if self._moves(some)}
        self._seeds = asked.by != "seed"

    def _moves(self, texts: Mapping[int, str]) -> bool:
        """Return whether a key varies among points with the same value of the compared key.

        Only such keys must agree within a pair. Optimizers that each have their own learning rate,
        or families that each have their own width, can still be compared.
        """
        seen: dict[str | None, str] = {}
        return any(seen.setdefault(self.value[one], text) != text for one, text in texts.items())

    def unit(self, status: PointStatus) -> tuple[_Told, str, str]:
        """Return what the points of a pair share: grouping values, size (as JSON) and seed."""
        told = tuple((key, status.point.value(key) or "") for key in self.within)
        own = [some[id(status)] for key, some in self._texts.items() if key != "seed"]
        seed = str(status.point.seed) if self._seeds else ""
        return told, json.dumps(own), seed


def _baseline(names: Mapping[str, str], asked: Compare) -> str:
    """Return the value that the others are compared with.

    Raises:
        InputError: no point has the requested baseline.
    """
    if asked.baseline is None:
        return next(iter(names), "")
    text = plain_text(asked.baseline)
    for value, shown in names.items():
        if text in (value, shown) or _number(text) == _number(value) is not None:
            return value
    listed = ", ".join(names.values())
    raise InputError(f"no point has {asked.by} {text} as a baseline; there are {listed}")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def within_of(statuses: Sequence[PointStatus], asked: Compare) -> list[str]:
    """Return the grouping keys: those of the comparison, or by default the swept data keys."""
    if asked.within is not None:
        return list(asked.within)
    keys = dict.fromkeys(key for s in statuses for key in s.point.swept)
    return [key for key in keys if key.split(".")[0] == "data" and key != asked.by]


def compared(statuses: Sequence[PointStatus], specs: Sequence[str]) -> list[Effect]:
    """Return the comparisons that frozen specs request, or else the one that a sweep suggests.

    The suggested one is by the only swept key with few values that belongs neither to the data nor
    to the size, or by the labels where only data keys are swept. It is omitted if it has no pairs.

    Args:
        statuses: all points; specs: text of the frozen specs.
    """
    asked = {one.model_dump_json(): one for text in specs for one in asked_by(text)}
    likely = suggested(statuses) if not asked else None
    listed = [likely] if likely else list(asked.values())
    found = decided([effect for one in listed for effect in effects(statuses, one)])
    return [] if likely and not any(effect.pairs for effect in found) else found


def asked_by(spec: str) -> list[Compare]:
    """Return the ``compare`` section of a frozen spec, which was validated when it was written.

    Args:
        spec: text of the spec.
    """
    lines = spec.splitlines()
    if not any(line.startswith("compare:") for line in lines):
        return []  # most specs have no such section, and parsing a long one takes a second
    listed = yaml.safe_load(spec)["compare"]
    return [Compare.model_validate(one) for one in listed]


def suggested(statuses: Sequence[PointStatus]) -> Compare | None:
    """Return the comparison that a sweep suggests, None if there is none; see :func:`compared`."""
    if len(statuses) > _MOST_POINTS:
        return None
    kinds = [key for key in varied_keys(statuses) if key.split(".")[-1] not in SIZES]
    values = {key: {s.point.value(key) for s in statuses} for key in kinds}
    few = [key for key in kinds if 1 < len(values[key]) <= _MOST_VALUES]
    of_data = [key for key in few if key.startswith("data.")]
    others = [key for key in few if key not in of_data]
    if len(others) == 1 and not _runs_along(statuses, others[0]):
        return Compare(by=others[0])
    if not others and "data.labels" in of_data:
        return Compare(by="data.labels", within=[k for k in of_data if k != "data.labels"])
    return None


def _runs_along(statuses: Sequence[PointStatus], key: str) -> bool:
    """Return whether a key has more than two numeric values, as the x axis of a curve has."""
    values = [s.point.swept.get(key) for s in statuses]
    numbers = {v for v in values if isinstance(v, int | float) and not isinstance(v, bool)}
    return len(numbers) > 2


def decided(found: Sequence[Effect]) -> list[Effect]:
    """Set the verdicts of comparisons, corrected for multiple comparisons (Holm 1979)."""
    known = [effect for effect in found if effect.pairs > effect.silent]
    differ = dict(zip(map(id, known), _holm([one.wrong for one in known]), strict=True))
    alike = dict(zip(map(id, known), _holm([1 - one.same for one in known]), strict=True))
    ended = []
    for effect in found:
        verdict: Verdict = "not decided"
        if alike.get(id(effect)):
            verdict = "the same within 10 %"
        elif differ.get(id(effect)):
            verdict = "larger" if effect.chance > 0.5 else "smaller"
        more = _more(effect, len(known)) if verdict == "not decided" else None
        ended.append(replace(effect, verdict=verdict, more=more))
    return ended


def _holm(chances: Sequence[float]) -> list[bool]:
    """Return which error probabilities pass at ``WRONG / 2`` over all together (Holm 1979)."""
    order = np.argsort(chances, kind="stable")
    passed = [False] * len(chances)
    for rank, place in enumerate(order):
        if chances[place] > WRONG / 2 / (len(chances) - rank):
            break
        passed[place] = True
    return passed


def _more(effect: Effect, comparisons: int) -> int | None:
    """Return how many more pairs would decide it, if the interval shrinks as 1 / sqrt(pairs)."""
    from scipy.stats import norm

    known = effect.pairs - effect.silent
    if effect.low is None or effect.high is None or not known:
        return None
    deviation = math.log(effect.high / effect.low) / (2 * norm.ppf((1 + effect.level) / 2))
    middle = abs(math.log(effect.ratio))
    needed = math.inf
    for distance, chance in (
        (middle, WRONG / 4 / comparisons),
        (math.log1p(SAME) - middle, WRONG / 2 / comparisons),
    ):
        if distance > 0:
            needed = min(needed, known * (norm.isf(chance) * deviation / distance) ** 2)
    more = math.ceil(needed) - known if needed < _MOST_PAIRS else None
    return None if more is None else max(more, 1)
