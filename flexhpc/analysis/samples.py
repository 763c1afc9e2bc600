"""Scores of single samples from the fit masks of a sweep: hardness, memorization, forgetting."""

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
from flexhpc.search.history import UNINFORMATIVE
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
    """Expected misses, their variance and observed misses of half of the trainings, (n_total,)."""

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
    """Agreement of two groups of networks on which samples are hard.

    Attributes:
        first, second: names of the two groups.
        samples: number of samples with a score in both halves of the trainings of both groups.
        correlation: correlation of hardness between the groups, over these samples.
        reliability: split-half reliability of the hardness of each group: the correlation between
            halves of its trainings, extrapolated to all of them (Spearman-Brown).
        corrected: correlation corrected for attenuation by noise (Spearman 1904); None if the
            reliability of a score is at most 0.1.
    """

    first: str
    second: str
    samples: int
    correlation: float
    reliability: tuple[float, float]
    corrected: float | None


@dataclass(kw_only=True)
class SampleScores:
    """Counts for each sample of a data set, over the trainings of several points.

    Trainings at large n miss more samples than those at small n, so the number of misses is not
    comparable between samples by itself. ``expected`` is the number of misses if each training had
    missed the same number of samples, chosen at random among those that it drew.

    Attributes:
        name: data set, labels and the values of the keys by which points are grouped.
        n_total: number of samples in the training set; trainings: number of counted trainings.
        point: the first of the points.
        drawn: number of trainings that drew the sample, (n_total,).
        blocks: share in failures: a training that missed m samples counts 1 / m for each of them,
            so the sum over samples is the number of trainings that did not fit, (n_total,).
        asked, right: number of trainings that evaluated the sample without having drawn it
            (``record.unseen``), and of these the ones that classified it correctly, (n_total,).
        watched, never_right: number of trainings that drew the sample and counted forgetting events
            (``record.forgetting``), and of these the ones that never classified it correctly,
            (n_total,).
        forgotten, forgotten_expected: number of forgetting events in the other trainings, and the
            number expected if each had forgotten all samples that it learnt equally often,
            (n_total,).
        by_n: drawn and fitted, each (n_total,), by n rounded down to a power of two.
        halves: observed and expected misses of every second training and of the others. Their sums
            are the counts; their differences show how reliable a score is.
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
        """Add the trainings of one point to the counts.

        Args:
            masks: masks of its probes; counts: which of these probes are to be counted.
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
        """Number of trainings that drew the sample and did not fit it, (n_total,)."""
        return self.halves[0].missed + self.halves[1].missed

    @property
    def expected(self) -> Floats:
        """Expected number of misses if each training missed samples at random, (n_total,)."""
        return self.halves[0].expected + self.halves[1].expected

    @property
    def variance(self) -> Floats:
        """Variance of the number of misses if each training missed at random, (n_total,)."""
        return self.halves[0].variance + self.halves[1].variance

    @property
    def hardness(self) -> Floats:
        """Misses above expectation in standard deviations, (n_total,); nan if never drawn."""
        with np.errstate(invalid="ignore", divide="ignore"):
            score = (self.missed - self.expected) / np.sqrt(self.variance)
        score[(self.variance == 0) & (self.drawn > 0)] = 0.0
        return score

    @property
    def consistency(self) -> Floats:
        """Fraction of trainings that classify the sample correctly without having drawn it.

        Shape (n_total,); nan if there are none. The C-score of Jiang et al. 2021 (arXiv
        2002.03206), over the subset sizes of this search.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self.right / self.asked)

    @property
    def memorization(self) -> Floats:
        """P(correct | drawn) - P(correct | not drawn), (n_total,); nan where either is unknown.

        The memorization score of Feldman and Zhang 2020 (arXiv 2008.03703), over the subset sizes
        of this search.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(1 - self.missed / self.drawn - self.consistency)

    @property
    def forgetting(self) -> Floats:
        """Number of forgetting events over the expected number, (n_total,); nan if that is 0.

        The forgetting events of Toneva et al. 2019 (arXiv 1812.05159). They are divided by the
        expected number because the trainings of a search differ in subset size and duration.
        Trainings that never classified the sample correctly have no forgetting events; they are
        counted by ``never_right``.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self.forgotten / self.forgotten_expected)

    def hardest(self, count: int) -> NDArray[np.int64]:
        """Return the ids of the hardest samples, hardest first; those missed once do not count."""
        known = np.flatnonzero(self.missed > 1)
        order = np.lexsort((-self.drawn[known], -self.hardness[known]))
        return known[order[:count]]

    def easiest(self, count: int) -> NDArray[np.int64]:
        """Return the ids of samples never missed, those with most expected misses first."""
        known = np.flatnonzero((self.drawn > 0) & (self.missed == 0))
        return known[np.argsort(-self.expected[known], kind="stable")[:count]]

    def frame(self) -> pd.DataFrame:
        """Return one row per drawn or evaluated sample, with its global id and all scores."""
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
    """Return the scores of samples for each data set, kind of labels and combination of ``by``.

    Args:
        points: points with their runs; those without a finished training are ignored.
        by: keys of the spec by whose values points are grouped, such as ``model.family``.

    Raises:
        InputError: no point has one of these keys, or there is no finished training.
        PointError: a file is corrupt.
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
        counts = [p.verdict not in UNINFORMATIVE and not p.rejected for p in status.record.probes]
        groups[key].add(read_masks(run.point(status.point.id)), counts)
    if not groups:
        raise InputError("nothing was trained yet, so there are no masks")
    return list(groups.values())


def agreements(groups: Sequence[SampleScores]) -> list[Agreement]:
    """Return the agreement of each pair of groups with the same data set and labels."""
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
    """Concatenate the rows of all groups, with the columns of every n sorted by n."""
    import pandas as pd

    frame = pd.concat([scores.frame() for scores in groups], ignore_index=True)
    sizes = sorted({low for scores in groups for low in scores.by_n})
    by_n = [f"{what}_n{low}" for low in sizes for what in ("drawn", "fitted")]
    frame[by_n] = frame[by_n].fillna(0).astype(np.int64)
    return frame[[*(name for name in frame if name not in by_n), *by_n]]


def _data(point: Point) -> dict[str, str]:
    """Return the data set of a point with its swept data keys, and its labels."""
    data = point.data.model_dump(mode="json")
    labels = str(data.get("labels", ""))
    if labels == "corrupted":
        labels += f" {data['corruption']:g}"
    if labels and labels != "original":
        labels += f", seed {point.seed}"  # labels depend on the seed, so seeds are separate groups
    swept = {k: v for k, v in point.swept.items() if k.startswith("data.") and k not in _TOLD}
    more = "".join(f", {short(key, value)}" for key, value in swept.items() if value is not None)
    return {"data": data["source"] + more, "labels": labels}


def title(scores: SampleScores) -> str:
    """Return a one-line description of a group."""
    told = [str(scores.name["data"])]
    if scores.name["labels"]:
        told.append(f"labels {scores.name['labels']}")
    if kind := kind_of(scores):
        told.append(kind)
    drawn = int((scores.drawn > 0).sum())
    return f"{', '.join(told)}: {drawn:,} samples drawn, in {scores.trainings:,} trainings"


def kind_of(scores: SampleScores) -> str:
    """Format the values of the keys by which points were grouped."""
    own = {key: value for key, value in scores.name.items() if key not in _DATA_KEYS}
    return ", ".join(f"{key.split('.')[-1]} {value}" for key, value in own.items())
