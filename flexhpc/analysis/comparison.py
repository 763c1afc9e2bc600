"""Ratios of EMCs between the values of a key: how large, how sure, and what would decide them.

Points that differ in that key alone (their seed, size and all else being equal) are a pair. The
pairs of two values scatter about a mean log ratio, because each EMC is known to its interval only,
and because seeds differ: both are in the interval of the mean, which is that of a random-effects
model, integrated on a grid. An EMC that is a bound enters as one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray

from flexhpc.analysis.figures.curves import SIZES
from flexhpc.analysis.figures.layout import kinds_of
from flexhpc.analysis.likelihood import (
    LOG_RATIO,
    Floats,
    blurred,
    is_open,
    likelihood_of,
    of_ratio,
    stacked,
)
from flexhpc.errors import InputError
from flexhpc.search.history import LEVEL
from flexhpc.spec.point import plain_text
from flexhpc.spec.sections.compare import Compare
from flexhpc.store.status import PointStatus

SAME = 0.1
"""Two EMCs count as the same if their ratio is below 1.1 and above 1 / 1.1."""
WRONG = 0.05
"""Chance of a wrong verdict that is accepted, over all comparisons that are made together."""
_SCATTERS = np.array([0.0, 0.02, 0.04, 0.06, 0.09, 0.13, 0.18, 0.25, 0.35, 0.5, 0.7, 1.0])
_USUAL_SCATTER = 0.2
"""Scatter of log ratios between pairs: its grid, and the scale of its half-normal prior."""
_UNLIKELY = 0.26
"""Relative likelihood at the one-sided bound of level 0.95, where the other side is open."""
_MOST_PAIRS = 1000
_MOST_VALUES = 12
"""Values of a key up to which they are compared without being asked to."""

Verdict = Literal["larger", "smaller", "the same within 10 %", "not decided"]


@dataclass(frozen=True, kw_only=True)
class Effect:
    """How much larger the EMC is at one value of a key than at another.

    Attributes:
        by: the key; value, baseline: its two values; within: values of the keys kept apart.
        pairs: points that differ in the key alone, twice; silent: of these, both are bounds on one
            side, which says nothing; alone: points at ``value`` without a counterpart.
        ratio: the mean over pairs, geometric; low, high: its interval, None where it is open.
        level: the probability that the interval is made for.
        chance: the probability that the ratio is above 1; same: that it is within 10 % of 1.
        scatter: deviation of the log ratio from pair to pair, beyond what intervals explain.
        verdict: at 5 % for all comparisons together (Holm 1979).
        more: pairs that would decide it beside these, if they scatter as these do; None if none
            are needed, or more than 1,000.
    """

    by: str
    value: str
    baseline: str
    within: Mapping[str, str]
    pairs: int
    silent: int
    alone: int
    ratio: float
    low: float | None
    high: float | None
    level: float
    chance: float
    same: float
    scatter: float
    verdict: Verdict = "not decided"
    more: int | None = None

    @property
    def wrong(self) -> float:
        """Chance that the ratio lies on the other side of 1."""
        return 2 * min(self.chance, 1 - self.chance)

    @property
    def said(self) -> str:
        """The verdict in words, with what would decide it."""
        if self.verdict != "not decided":
            return self.verdict
        if self.pairs == self.silent:
            return "not decided: both are bounds"
        if self.more is None:
            return f"not decided (more than {_MOST_PAIRS:,} pairs would)"
        return f"not decided ({self.more} more {'pair' if self.more == 1 else 'pairs'} would)"

    @property
    def ratio_text(self) -> str:
        """The ratio with its interval: ``1.52 [1.31, 1.77]``, ``>= 1.3``."""
        if self.low is None and self.high is None:
            return ""
        if self.high is None:
            return f">= {self.low:.2f}"
        if self.low is None:
            return f"<= {self.high:.2f}"
        return f"{self.ratio:.2f} [{self.low:.2f}, {self.high:.2f}]"


def effects(statuses: Sequence[PointStatus], asked: Compare, level: float = LEVEL) -> list[Effect]:
    """Compare the EMCs at each value of a key with those at its baseline.

    Args:
        statuses: points of a run, or of several; those without an estimate are left out.
        asked: the key, the baseline (by default the value of the first point), and keys whose
            values are compared apart (by default those of the data).
        level: of the intervals.

    Raises:
        InputError: no point has the key, or the baseline.
    """
    measured = [s for s in statuses if s.estimate is not None and s.record is not None]
    values = {id(s): value_of(s, asked.by) for s in measured}
    names = list(dict.fromkeys(text for s in measured if (text := values[id(s)]) is not None))
    if measured and not names:
        swept = dict.fromkeys(key for s in measured for key in s.point.swept)
        raise InputError(f"{asked.by}: no point has this key; swept are {', '.join(swept)}")
    if len(names) < 2:
        return []
    baseline = names[0] if asked.baseline is None else plain_text(asked.baseline)
    if baseline not in names:
        raise InputError(
            f"no point has {asked.by} {baseline} as a baseline; there are {', '.join(names)}"
        )
    within = within_of(statuses, asked)
    units = _units(measured, asked.by, within, values)
    likelihoods: dict[str, Floats] = {}
    found: list[Effect] = []
    for told in dict.fromkeys(_told(s, within) for s in measured):
        some = {key: unit for key, unit in units.items() if key[0] == told}
        for name in names:
            if name != baseline:
                found += _effect(some, name, baseline, asked.by, dict(told), level, likelihoods)
    return _decided(found)


def compared(statuses: Sequence[PointStatus], specs: Sequence[str]) -> list[Effect]:
    """Return the comparisons that frozen specs ask for, or else the one that a sweep suggests.

    That is by its only swept key of a few values that is neither of the data nor a size, or by the
    labels where only data were swept.

    Args:
        statuses: of every point; specs: the frozen specs, as text.
    """
    asked = {one.model_dump_json(): one for text in specs for one in _said(text)}
    likely = suggested(statuses) if not asked else None
    listed = [likely] if likely else list(asked.values())
    return [effect for one in listed for effect in effects(statuses, one)]


def _said(spec: str) -> list[Compare]:
    """Return what a frozen spec wants compared; it was checked when it was written."""
    lines = spec.splitlines()
    if not any(line.startswith("compare:") for line in lines):
        return []  # most have none, and a long one takes a second to parse
    listed = yaml.safe_load(spec)["compare"]
    return [Compare.model_validate(one) for one in listed]


def suggested(statuses: Sequence[PointStatus]) -> Compare | None:
    """Return the comparison that a sweep suggests, if there is one; see :func:`compared`."""
    kinds = [key for key in kinds_of(statuses) if key.split(".")[-1] not in SIZES]
    values = {key: {value_of(s, key) for s in statuses} for key in kinds}
    few = [key for key in kinds if 1 < len(values[key]) <= _MOST_VALUES]
    of_data = [key for key in few if key.startswith("data.")]
    others = [key for key in few if key not in of_data]
    if len(others) == 1 and not _runs_along(statuses, others[0]):
        return Compare(by=others[0])
    if not others and "data.labels" in of_data:
        return Compare(by="data.labels", within=[k for k in of_data if k != "data.labels"])
    return None


def _runs_along(statuses: Sequence[PointStatus], key: str) -> bool:
    """Return whether a key is a number of several values, which a curve runs along."""
    numbers = {s.point.swept.get(key) for s in statuses if _is_number(s.point.swept.get(key))}
    return len(numbers) > 2


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_Told = tuple[tuple[str, str], ...]
_Unit = dict[str, PointStatus]


def value_of(status: PointStatus, key: str) -> str | None:
    """Return the value of a dotted key of a point as text; None where it has none.

    ``run`` is the name of the run, where there are several.
    """
    if key in status.point.swept:
        return plain_text(status.point.swept[key])
    value: Any = json.loads(status.point.canonical)
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return plain_text(value)


def within_of(statuses: Sequence[PointStatus], asked: Compare) -> list[str]:
    """Return the keys whose values are compared apart: those given, or those swept of the data."""
    if asked.within is not None:
        return list(asked.within)
    keys = dict.fromkeys(key for s in statuses for key in s.point.swept)
    return [key for key in keys if key.split(".")[0] == "data" and key != asked.by]


def _told(status: PointStatus, keys: Sequence[str]) -> _Told:
    return tuple((key, value_of(status, key) or "") for key in keys)


def _units(
    measured: Sequence[PointStatus],
    by: str,
    within: Sequence[str],
    values: Mapping[int, str | None],
) -> dict[tuple[_Told, str], _Unit]:  # fmt: skip
    """Return points by all that was swept but the key, and but what goes with its value alone.

    Optimizers with a rate of their own each, or families with a width of their own, are compared
    all the same.
    """
    keys = [key for key in dict.fromkeys(k for s in measured for k in s.point.swept) if key != by]
    if by != "run" and len({s.point.swept.get("run") for s in measured}) > 1:
        keys = [key for key in keys if key != "run"]
    free = [key for key in keys if key not in within and _moves(measured, key, values)]
    units: dict[tuple[_Told, str], _Unit] = {}
    for status in measured:
        value = values[id(status)]
        if value is not None:
            rest = json.dumps([plain_text(status.point.swept.get(key)) for key in free])
            seed = "" if by == "seed" else json.dumps(status.point.seed)
            unit = units.setdefault((_told(status, within), rest + seed), {})
            unit.setdefault(value, status)
    return units


def _moves(measured: Sequence[PointStatus], key: str, values: Mapping[int, str | None]) -> bool:
    """Return whether a key takes several values at one value of the key that is compared."""
    seen: dict[str | None, str] = {}
    for status in measured:
        text = plain_text(status.point.swept.get(key))
        if seen.setdefault(values[id(status)], text) != text:
            return True
    return False


def _effect(
    units: Mapping[tuple[_Told, str], _Unit], value: str, baseline: str, by: str,
    within: Mapping[str, str], level: float, likelihoods: dict[str, Floats],
) -> Iterator[Effect]:  # fmt: skip
    pairs = [(u[value], u[baseline]) for u in units.values() if value in u and baseline in u]
    alone = sum(value in u and baseline not in u for u in units.values())
    if not pairs and not alone:
        return

    def likelihood(status: PointStatus) -> Floats:
        key = f"{status.point.id} {status.probes}"
        if key not in likelihoods:
            likelihoods[key] = likelihood_of(status)
        return likelihoods[key]

    ratios = [of_ratio(likelihood(a), likelihood(b)) for a, b in pairs]
    known = [ratio for ratio in ratios if ratio is not None]
    yield replace(
        _mean(known, level),
        by=by, value=value, baseline=baseline, within=within,
        pairs=len(pairs), silent=len(pairs) - len(known), alone=alone,
    )  # fmt: skip


def _mean(ratios: Sequence[Floats], level: float) -> Effect:
    """Return the mean log ratio of pairs and its interval.

    A single pair says nothing of how pairs scatter: its interval is that of its own ratio.
    """
    made = Effect(
        by="", value="", baseline="", within={}, pairs=len(ratios), silent=0, alone=0,
        ratio=math.nan, low=None, high=None, level=level, chance=0.5, same=0.0, scatter=0.0,
    )  # fmt: skip
    if not ratios:
        return made
    joint = joint_of(stacked(ratios))
    weight = joint.sum(axis=0)
    open_below, open_above = is_open(weight / weight.max())
    below = np.cumsum(weight) - weight / 2
    ends = np.interp([(1 - level) / 2, 0.5, (1 + level) / 2], below / weight.sum(), LOG_RATIO)
    low, middle, high = (math.exp(end) for end in ends)
    if open_above:
        low = _bound(ratios, 0)
    if open_below:
        high = _bound(ratios, -1)
    share = weight / weight.sum()
    within = np.abs(LOG_RATIO) <= math.log1p(SAME)
    return replace(
        made,
        ratio=middle,
        low=None if open_below else low,
        high=None if open_above else high,
        chance=_above(weight, LOG_RATIO > 0, open_below=open_below, open_above=open_above),
        same=0.0 if open_below or open_above else float(share[within].sum()),
        scatter=float(joint.sum(axis=1) @ _SCATTERS[: len(joint)] / joint.sum()),
    )


def _bound(ratios: Sequence[Floats], side: int) -> float:
    """Return a bound of the mean ratio where each pair is one: the mean of theirs.

    That pairs do not scatter would make it that of the most telling pair, but bounds cannot say so.
    """
    ends = [LOG_RATIO[np.flatnonzero(ratio > _UNLIKELY)[side]] for ratio in ratios]
    return math.exp(float(np.mean(ends)))


def _above(
    weight: Floats, above: NDArray[np.bool_], *, open_below: bool, open_above: bool
) -> float:
    """Return the chance that the ratio is above 1.

    On an open side a uniform prior would decide; the likelihood at 1 does instead, as for a bound.
    """
    if open_below == open_above:
        return 0.5 if open_below else float(weight[above].sum() / weight.sum())
    at_one = float(weight[len(weight) // 2] / weight.max())
    tail = 0.5 * math.erfc(math.sqrt(max(-math.log(max(at_one, 1e-12)), 0.0)))
    return 1 - tail if open_above else tail


def joint_of(likelihoods: Floats) -> Floats:
    """Return the posterior of scatter and mean of values on a grid, (scatters, cells), to a factor.

    Args:
        likelihoods: of single values, (values, cells). Of one alone the scatter is taken to be 0.
    """
    scatters = _SCATTERS if len(likelihoods) > 1 else _SCATTERS[:1]
    steps = np.gradient(scatters) if len(scatters) > 1 else np.ones(1)
    logs = np.array([np.log(blurred(likelihoods, s)).sum(axis=0) for s in scatters])
    logs += (np.log(steps) - 0.5 * (scatters / _USUAL_SCATTER) ** 2)[:, None]
    return np.asarray(np.exp(logs - logs.max()))


def _decided(found: Sequence[Effect]) -> list[Effect]:
    """Return the comparisons with their verdicts, corrected for how many there are."""
    differ = _holm([effect.wrong for effect in found])
    alike = _holm([1 - effect.same for effect in found])
    decided = []
    for effect, unlike, same in zip(found, differ, alike, strict=True):
        verdict: Verdict = "not decided"
        if same:
            verdict = "the same within 10 %"
        elif unlike:
            verdict = "larger" if effect.chance > 0.5 else "smaller"
        more = _more(effect, len(found)) if verdict == "not decided" else None
        decided.append(replace(effect, verdict=verdict, more=more))
    return decided


def _holm(chances: Sequence[float]) -> list[bool]:
    """Return which chances of being wrong are small enough, all together (Holm 1979)."""
    order = np.argsort(chances, kind="stable")
    passed = [False] * len(chances)
    for rank, place in enumerate(order):
        if chances[place] > WRONG / (len(chances) - rank):
            break
        passed[place] = True
    return passed


def _more(effect: Effect, comparisons: int) -> int | None:
    """Return how many more pairs would decide it, if the interval shrinks as their root does."""
    from scipy.stats import norm

    known = effect.pairs - effect.silent
    if effect.low is None or effect.high is None or not known:
        return None
    deviation = math.log(effect.high / effect.low) / (2 * norm.ppf((1 + effect.level) / 2))
    middle = abs(math.log(effect.ratio))
    needed = math.inf
    for distance, chance in (
        (middle, WRONG / 2 / comparisons),
        (math.log1p(SAME) - middle, WRONG / comparisons),
    ):
        if distance > 0:
            needed = min(needed, known * (norm.isf(chance) * deviation / distance) ** 2)
    more = math.ceil(needed) - known if needed < _MOST_PAIRS else None
    return None if more is None else max(more, 1)
