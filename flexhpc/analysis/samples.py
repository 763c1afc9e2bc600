"""What the fit masks of a sweep say of each sample: how often it was fitted, and what it blocks."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flexhpc.config import Point
from flexhpc.config.point import short
from flexhpc.errors import InputError
from flexhpc.search.history import UNTOLD
from flexhpc.store import Masks, RunFolder, read_masks
from flexhpc.store.bits import unpack
from flexhpc.store.status import PointStatus

if TYPE_CHECKING:
    import pandas as pd

_DATA_KEYS = ("data", "labels")
_TOLD = ("data.source", "data.labels", "data.corruption", "data.n_max")
Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
_LEAST_RELIABLE = 0.1


@dataclass(kw_only=True)
class _Half:
    """Misses expected of every other training, their variance, and those seen, (n_total,)."""

    expected: Floats
    variance: Floats
    missed: Counts

    @classmethod
    def of(cls, n_total: int) -> _Half:
        sums = np.zeros((2, n_total))
        return cls(expected=sums[0], variance=sums[1], missed=np.zeros(n_total, np.int64))

    @property
    def score(self) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((self.missed - self.expected) / np.sqrt(self.variance))


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far two kinds of networks find the same samples hard.

    Attributes:
        first, second: titles of the two.
        samples: that both drew in each half of their trainings.
        correlation: of their hardness, over these samples.
        reliability: of each one's hardness: its correlation between halves of the trainings,
            stepped up to all of them (Spearman-Brown).
        corrected: the correlation that scores without noise would have (Spearman 1904); None where
            a score is all but noise.
    """

    first: str
    second: str
    samples: int
    correlation: float
    reliability: tuple[float, float]
    corrected: float | None


@dataclass(kw_only=True)
class SampleScores:
    """Counts over the trainings of several points on one data set, for each of its samples.

    A large n misses many samples, a small one few, so how often a sample was missed says little by
    itself. ``expected`` is how often it would have been if each training had missed its share at
    random among those that it drew.

    Attributes:
        name: data set, labels and the values of the keys by which points were grouped.
        n_total: samples in the training set; trainings: how many were counted.
        point: the first of the points.
        drawn: trainings that drew it, (n_total,).
        blocks: its part in failures: a training that missed m samples counts 1 / m for each of
            them, so the sum over samples is the number of trainings that did not fit, (n_total,).
        asked, right: trainings that were asked for it unseen (``record.unseen``), and got it right.
        watched, never_right: trainings that counted how often they forgot it
            (``record.forgetting``), and of these the ones in which it was never right.
        forgotten, forgotten_expected: how often the others forgot it, and would have if each had
            forgotten all samples that it learnt equally often.
        by_n: drawn and fitted, each (n_total,), by the power of two that n lies above.
        halves: misses, and those expected, of every other training: both together are the counts,
            and apart they tell how reliable a score is.
    """

    name: dict[str, str]
    n_total: int
    trainings: int = 0
    point: Point | None = None
    drawn: Counts = field(init=False)
    blocks: Floats = field(init=False)
    asked: Counts = field(init=False)
    right: Counts = field(init=False)
    watched: Counts = field(init=False)
    never_right: Counts = field(init=False)
    forgotten: Counts = field(init=False)
    forgotten_expected: Floats = field(init=False)
    by_n: dict[int, tuple[NDArray[np.int32], NDArray[np.int32]]] = field(default_factory=dict)
    halves: tuple[_Half, _Half] = field(init=False)

    def __post_init__(self) -> None:
        self.halves = (_Half.of(self.n_total), _Half.of(self.n_total))
        for counts in ("drawn", "asked", "right", "watched", "never_right", "forgotten"):
            setattr(self, counts, np.zeros(self.n_total, np.int64))
        self.blocks, self.forgotten_expected = np.zeros((2, self.n_total))

    def add(self, masks: Masks, counts: Sequence[bool]) -> None:
        """Count the trainings of one point, one at a time.

        Args:
            masks: of its probes; counts: which of them say something of single samples.
        """
        for row in np.flatnonzero(counts[: len(masks.n)]):
            drawn = unpack(masks.subset[row], self.n_total)
            fitted = unpack(masks.fit[row], self.n_total)
            missed = drawn & ~fitted
            count, n = int(missed.sum()), int(drawn.sum())
            share = count / max(n, 1)
            half = self.halves[self.trainings % 2]
            half.missed += missed
            half.expected[drawn] += share
            half.variance[drawn] += share * (1 - share)
            self.trainings += 1
            self.drawn += drawn
            self.blocks[missed] += 1 / max(count, 1)
            some = self.by_n.setdefault(1 << (max(n, 1).bit_length() - 1), self._none())
            np.add(some[0], drawn, out=some[0])
            np.add(some[1], fitted, out=some[1])
            if masks.outside[row].any():
                self.asked += unpack(masks.outside[row], self.n_total)
                self.right += unpack(masks.outside_fit[row], self.n_total)
            times = masks.forgotten[int(row)] if row < len(masks.forgotten) else None
            if times is not None:
                learnt = times >= 0
                self.watched += drawn
                self.never_right[drawn] += ~learnt
                self.forgotten[drawn] += np.maximum(times, 0)
                usual = float(times[learnt].mean()) if learnt.any() else 0.0
                self.forgotten_expected[drawn] += usual * learnt

    def _none(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        return np.zeros(self.n_total, np.int32), np.zeros(self.n_total, np.int32)

    @property
    def missed(self) -> Counts:
        """Trainings that drew it and ended without fitting it, (n_total,)."""
        return self.halves[0].missed + self.halves[1].missed

    @property
    def expected(self) -> Floats:
        """How many these would be if each training had missed its share at random, (n_total,)."""
        return self.halves[0].expected + self.halves[1].expected

    @property
    def variance(self) -> Floats:
        """Variance of that count, (n_total,)."""
        return self.halves[0].variance + self.halves[1].variance

    @property
    def hardness(self) -> Floats:
        """Misses beyond those expected, in standard deviations, (n_total,); nan if never drawn."""
        with np.errstate(invalid="ignore", divide="ignore"):
            score = (self.missed - self.expected) / np.sqrt(self.variance)
        score[(self.variance == 0) & (self.drawn > 0)] = 0.0
        return score

    @property
    def consistency(self) -> Floats:
        """Part of the trainings that get it right unseen, (n_total,); nan if none was asked.

        The C-score of Jiang et al. 2021 (arXiv 2002.03206), over the subset sizes of this search.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self.right / self.asked)

    @property
    def memorization(self) -> Floats:
        """P(right | drawn) - P(right | not drawn), (n_total,); nan where either is not known.

        Of Feldman and Zhang 2020 (arXiv 2008.03703), over the subset sizes of this search.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(1 - self.missed / self.drawn - self.consistency)

    @property
    def forgetting(self) -> Floats:
        """Times that it was forgotten over those expected, (n_total,); nan where none are.

        The forgetting events of Toneva et al. 2019 (arXiv 1812.05159); over those expected, since
        searches train on many and on few samples, for long and for short. Trainings in which it was
        never right forgot nothing: of these tells ``never_right``.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self.forgotten / self.forgotten_expected)

    def hardest(self, count: int) -> NDArray[np.int64]:
        """Return ids of the hardest samples, hardest first; one miss alone makes none hard."""
        known = np.flatnonzero(self.missed > 1)
        order = np.lexsort((-self.drawn[known], -self.hardness[known]))
        return known[order[:count]]

    def easiest(self, count: int) -> NDArray[np.int64]:
        """Return ids of samples that were never missed where others most often were."""
        known = np.flatnonzero((self.drawn > 0) & (self.missed == 0))
        return known[np.argsort(-self.expected[known], kind="stable")[:count]]

    def frame(self) -> pd.DataFrame:
        """Return a row per sample that was drawn or asked for: its global id, and all scores."""
        import pandas as pd

        columns: dict[str, Any] = dict(self.name)
        columns |= {
            "sample": np.arange(self.n_total), "drawn": self.drawn, "missed": self.missed,
            "expected": self.expected, "hardness": self.hardness, "blocks": self.blocks,
            "asked_unseen": self.asked, "right_unseen": self.right,
            "consistency": self.consistency, "memorization": self.memorization,
            "watched": self.watched, "never_right": self.never_right,
            "forgotten": self.forgotten, "forgetting": self.forgetting,
        }  # fmt: skip
        for low, (drawn, fitted) in sorted(self.by_n.items()):
            columns |= {f"drawn_n{low}": drawn, f"fitted_n{low}": fitted}
        frame = pd.DataFrame(columns)
        return frame[(self.drawn > 0) | (self.asked > 0)].reset_index(drop=True)


def scores_of(
    points: Iterable[tuple[RunFolder, PointStatus]], by: Sequence[str] = ()
) -> list[SampleScores]:
    """Return the scores of samples, apart for each data set, kind of labels and value of ``by``.

    Args:
        points: with the run that each lies in; those without a finished training are left out.
        by: keys of the spec, as ``model.family``, whose values are to be kept apart.

    Raises:
        InputError: no point has such a key, or there is nothing yet.
        PointError: a file is damaged.
    """
    groups: dict[str, SampleScores] = {}
    listed = [(run, one) for run, one in points if one.record is not None and one.record.probes]
    for wanted in by:
        if listed and all(one.point.value(wanted) is None for _, one in listed):
            raise InputError(f"--by {wanted}: no point has such a key")
    for run, status in listed:
        assert status.record is not None
        name = _data(status.point) | {key: status.point.value(key) or "" for key in by}
        key = json.dumps([status.record.header.data_fingerprint, name], sort_keys=True)
        if key not in groups:
            n_total = status.record.header.n_total
            groups[key] = SampleScores(name=name, n_total=n_total, point=status.point)
        counts = [p.verdict not in UNTOLD and not p.rejected for p in status.record.probes]
        groups[key].add(read_masks(run.point(status.point.id)), counts)
    if not groups:
        raise InputError("nothing was trained yet, so there are no masks")
    return list(groups.values())


def agreements(groups: Sequence[SampleScores]) -> list[Agreement]:
    """Return how far each two groups on one data set, with one kind of labels, agree."""
    found = []
    for first, second in itertools.combinations(groups, 2):
        same = all(first.name[key] == second.name[key] for key in _DATA_KEYS)
        if same and first.n_total == second.n_total:
            found.append(_agreement(first, second))
    return found


def _agreement(first: SampleScores, second: SampleScores) -> Agreement:
    halves = [half.score for scores in (first, second) for half in scores.halves]
    known = np.all(np.isfinite(halves), axis=0)
    reliability = tuple(
        _stepped_up(_correlation(halves[i][known], halves[i + 1][known])) for i in (0, 2)
    )
    correlation = _correlation(first.hardness[known], second.hardness[known])
    noisy = not min(reliability) > _LEAST_RELIABLE
    return Agreement(
        first=kind_of(first), second=kind_of(second), samples=int(known.sum()),
        correlation=correlation, reliability=(reliability[0], reliability[1]),
        corrected=None if noisy else min(correlation / math.sqrt(math.prod(reliability)), 1.0),
    )  # fmt: skip


def _correlation(x: NDArray[Any], y: NDArray[Any]) -> float:
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return float(np.corrcoef(x, y)[0, 1])


def _stepped_up(half: float) -> float:
    return 2 * half / (1 + half)


def frame_of(groups: Sequence[SampleScores]) -> pd.DataFrame:
    """Return the rows of all groups, with the columns of every n in order."""
    import pandas as pd

    frame = pd.concat([scores.frame() for scores in groups], ignore_index=True)
    sizes = sorted({low for scores in groups for low in scores.by_n})
    by_n = [f"{what}_n{low}" for low in sizes for what in ("drawn", "fitted")]
    frame[by_n] = frame[by_n].fillna(0).astype(np.int64)
    return frame[[*(name for name in frame if name not in by_n), *by_n]]


def _data(point: Point) -> dict[str, str]:
    """Return what data set a point is on, what its networks see of it, and what they fit."""
    data = point.data.model_dump(mode="json")
    labels = str(data.get("labels", ""))
    if labels == "corrupted":
        labels += f" {data['corruption']:g}"
    if labels and labels != "original":
        labels += f", seed {point.seed}"  # other seeds draw other labels
    swept = {k: v for k, v in point.swept.items() if k.startswith("data.") and k not in _TOLD}
    more = "".join(f", {short(key, value)}" for key, value in swept.items() if value is not None)
    return {"data": data["source"] + more, "labels": labels}


def title(scores: SampleScores) -> str:
    """Return what a group is, in a line."""
    told = [str(scores.name["data"])]
    if scores.name["labels"]:
        told.append(f"labels {scores.name['labels']}")
    if kind := kind_of(scores):
        told.append(kind)
    drawn = int((scores.drawn > 0).sum())
    return f"{', '.join(told)}: {drawn:,} samples drawn, in {scores.trainings:,} trainings"


def kind_of(scores: SampleScores) -> str:
    """Return the values of the keys by which a group was kept apart."""
    own = {key: value for key, value in scores.name.items() if key not in _DATA_KEYS}
    return ", ".join(f"{key.split('.')[-1]} {value}" for key, value in own.items())
