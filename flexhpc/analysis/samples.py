"""Scores of individual samples, from fit masks: hardness, memorization, forgetting."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flexhpc.config import Point
from flexhpc.config.point import swept_value_label
from flexhpc.errors import InputError
from flexhpc.search.history import Floats
from flexhpc.store import Masks, RunFolder, read_masks
from flexhpc.store.bits import unpack_masks
from flexhpc.store.status import PointStatus

if TYPE_CHECKING:
    import pandas as pd

_DATA_KEYS = ("data", "labels")
_NAMED_KEYS = ("data.source", "data.labels", "data.corruption", "data.n_max")
"""Swept data keys whose values are not appended to the name of a data set."""
UNINFORMATIVE = ("diverged", "unstable")
"""Verdicts of training runs whose missed samples are not counted."""
Counts = NDArray[np.int64]
_MIN_RELIABILITY = 0.1


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Correlation of the hardness of samples between two groups of training runs.

    Attributes:
        first, second: names of the two groups.
        samples: number of samples whose hardness is known in both halves of both groups.
        correlation: correlation of hardness between the groups, over these samples.
        reliability: split-half reliability of the hardness in each group: the correlation between
            two halves of the training runs, extrapolated to all training runs (Spearman-Brown).
        corrected: correlation corrected for attenuation by noise (Spearman 1904); None if either
            reliability is at most 0.1.
    """

    first: str
    second: str
    samples: int
    correlation: float
    reliability: tuple[float, float]
    corrected: float | None


class SampleScores:
    """Counts and scores of each sample of a data set, over the training runs of several points.

    A training run draws a subset of the samples. The drawn samples that it does not fit are its
    misses. How often a sample is missed depends on the n of the training runs that drew it.
    Therefore its number of misses is compared with ``expected``: the expected number if each
    training run had chosen its misses (the same number of samples) at random from its subset.

    Attributes:
        group: names of the data set and the labels, and the values of the grouping keys.
        n_total: number of samples in the training set.
        trainings: number of training runs.
        point: the first point of the group.
        drawn: number of training runs that drew the sample, (n_total,).
        blocks: share of the sample in failures, (n_total,). If a training run missed m samples,
            1 / m is added for each missed sample, so the sum over all samples is the number of
            training runs that did not fit.
        unseen: number of training runs that evaluated the sample without having drawn it
            (``record.unseen``), (n_total,).
        unseen_correct: number of ``unseen`` training runs that classified the sample correctly,
            (n_total,).
        watched: number of training runs that drew the sample and counted forgetting events
            (``record.forgetting``), (n_total,).
        never_correct: number of ``watched`` training runs that never classified the sample
            correctly, (n_total,).
        forgotten: number of forgetting events in ``watched`` training runs that classified the
            sample correctly at least once, (n_total,).
        forgotten_expected: expected value of ``forgotten`` if, within each training run, all
            samples that were ever classified correctly had the same number of forgetting events,
            (n_total,).
        by_n: dict of n (rounded down to a power of two) -> array (2, n_total) with the number of
            training runs that drew the sample and the number that fitted it.
        half_missed: ``missed`` of the training runs with even index and of those with odd index,
            (2, n_total). The reliability of a score is computed from these two halves.
        half_expected, half_variance: expected value and variance of ``half_missed`` if each
            training run had chosen its misses at random from its subset, (2, n_total).
    """

    def __init__(self, group: dict[str, str], n_total: int, point: Point | None = None) -> None:
        self.group, self.n_total, self.point, self.trainings = group, n_total, point, 0
        counts = np.zeros((4, n_total), np.int64)
        self.drawn, self.unseen, self.unseen_correct, self.forgotten = counts
        self.watched, self.never_correct = np.zeros((2, n_total), np.int64)
        self.blocks, self.forgotten_expected = np.zeros((2, n_total))
        self.half_missed = np.zeros((2, n_total), np.int64)
        self.half_expected, self.half_variance = np.zeros((2, 2, n_total))
        self.by_n: dict[int, NDArray[np.int32]] = {}

    def add(self, masks: Masks, included: Sequence[bool]) -> None:
        """Add the training runs of one point to the counts.

        Args:
            masks: masks of the probes of the point.
            included: for each probe, whether to count it.
        """
        for row in np.flatnonzero(included[: len(masks.n)]):
            drawn = unpack_masks(masks.subset[row], self.n_total)
            fitted = unpack_masks(masks.fit[row], self.n_total)
            missed = drawn & ~fitted
            count, n = int(missed.sum()), int(drawn.sum())
            share = count / max(n, 1)
            half = self.trainings % 2
            self.half_missed[half] += missed
            self.half_expected[half, drawn] += share
            self.half_variance[half, drawn] += share * (1 - share)
            self.trainings += 1
            self.drawn += drawn
            self.blocks[missed] += 1 / max(count, 1)
            size = 1 << (max(n, 1).bit_length() - 1)
            totals = self.by_n.setdefault(size, np.zeros((2, self.n_total), np.int32))
            totals[0] += drawn
            totals[1] += fitted
            if masks.outside[row].any():
                self.unseen += unpack_masks(masks.outside[row], self.n_total)
                self.unseen_correct += unpack_masks(masks.outside_fit[row], self.n_total)
            events = masks.forgotten[int(row)] if row < len(masks.forgotten) else None
            if events is not None:
                learnt = events >= 0
                self.watched += drawn
                self.never_correct[drawn] += ~learnt
                self.forgotten[drawn] += np.maximum(events, 0)
                mean = float(events[learnt].mean()) if learnt.any() else 0.0
                self.forgotten_expected[drawn] += mean * learnt

    @property
    def missed(self) -> Counts:
        """Number of training runs that drew the sample but did not fit it, (n_total,)."""
        return np.asarray(self.half_missed.sum(axis=0))

    @property
    def expected(self) -> Floats:
        """Expected ``missed`` if each training run chose its misses at random, (n_total,)."""
        return np.asarray(self.half_expected.sum(axis=0))

    @property
    def hardness(self) -> Floats:
        """``missed`` minus ``expected``, in standard deviations, (n_total,); nan if never drawn."""
        variance = self.half_variance.sum(axis=0)
        score = _ratio(self.missed - self.expected, np.sqrt(variance))
        score[(variance == 0) & (self.drawn > 0)] = 0.0
        return score

    @property
    def half_hardness(self) -> Floats:
        """Hardness of each sample in the two halves of the training runs, (2, n_total)."""
        return _ratio(self.half_missed - self.half_expected, np.sqrt(self.half_variance))

    @property
    def reliability(self) -> float:
        """Split-half reliability of the hardness (:class:`Agreement`); nan if it is unknown."""
        halves = self.half_hardness
        return _reliability(halves[:, np.isfinite(halves).all(axis=0)])

    @property
    def consistency(self) -> Floats:
        """P(correct | not drawn), (n_total,); nan for samples whose ``unseen`` is 0.

        This is the C-score of Jiang et al. 2021 (arXiv 2002.03206), averaged over training
        runs with subsets of different sizes.
        """
        return _ratio(self.unseen_correct, self.unseen)

    @property
    def memorization(self) -> Floats:
        """P(correct | drawn) - P(correct | not drawn), (n_total,); nan if either is unknown.

        This is the memorization score of Feldman and Zhang 2020 (arXiv 2008.03703), averaged over
        training runs with subsets of different sizes.
        """
        return np.asarray(1 - _ratio(self.missed, self.drawn) - self.consistency)

    @property
    def forgetting(self) -> Floats:
        """``forgotten`` / ``forgotten_expected``, (n_total,); nan if no event is expected.

        Toneva et al. 2019 (arXiv 1812.05159) count forgetting events. Here the number is divided by
        its expected value, because training runs of a search differ in subset size and duration.
        Training runs that never classified the sample correctly are counted in ``never_correct``.
        """
        return _ratio(self.forgotten, self.forgotten_expected)

    def hardest(self, count: int) -> NDArray[np.int64]:
        """Return up to ``count`` ids of samples that were missed more than once, hardest first."""
        candidates = np.flatnonzero(self.missed > 1)
        order = np.lexsort((-self.drawn[candidates], -self.hardness[candidates]))
        return candidates[order[:count]]

    def easiest(self, count: int) -> NDArray[np.int64]:
        """Return the ids of up to ``count`` drawn samples that were never missed.

        Samples with the most expected misses come first.
        """
        candidates = np.flatnonzero((self.drawn > 0) & (self.missed == 0))
        return candidates[np.argsort(-self.expected[candidates], kind="stable")[:count]]


def sample_scores(
    points: Iterable[tuple[RunFolder, PointStatus]], by: Sequence[str] = ()
) -> list[SampleScores]:
    """Compute sample scores for each combination of data set, labels and values of ``by``.

    Args:
        points: points with their run folders; those without a finished training run are ignored.
        by: grouping keys, such as ``model.family``. Points are grouped by the values of these keys.

    Raises:
        InputError: a key of ``by`` occurs in no point, or no training run has finished.
        PointError: a point file is missing, is corrupt or was written by another version.
    """
    groups: dict[str, SampleScores] = {}
    trained = [(run, status) for run, status in points if status.record and status.record.probes]
    for key in by:
        if trained and all(status.point.value_text(key) is None for _, status in trained):
            raise InputError(f"--by {key}: no point has this key")
    for run, status in trained:
        assert status.record is not None
        group = _data_and_labels(status.point) | {
            key: status.point.value_text(key) or "" for key in by
        }
        key = json.dumps([status.record.header.data_fingerprint, group], sort_keys=True)
        if key not in groups:
            n_total = status.record.header.n_total
            groups[key] = SampleScores(group=group, n_total=n_total, point=status.point)
        last = set(map(id, status.record.training_runs))
        included = [
            id(p) in last and p.verdict not in UNINFORMATIVE and not p.rejected
            for p in status.record.probes
        ]
        groups[key].add(read_masks(run.point_file(status.point.id)), included)
    if not groups:
        raise InputError("no masks yet: no training run has finished")
    return list(groups.values())


def agreements(groups: Sequence[SampleScores]) -> list[Agreement]:
    """Return the agreement between every two groups that have the same data set and labels."""
    return [
        _agreement(first, second)
        for first, second in itertools.combinations(groups, 2)
        if first.n_total == second.n_total
        and all(first.group[key] == second.group[key] for key in _DATA_KEYS)
    ]


def _agreement(first: SampleScores, second: SampleScores) -> Agreement:
    halves = first.half_hardness, second.half_hardness
    scored = np.isfinite(halves).all(axis=(0, 1))
    reliability = _reliability(halves[0][:, scored]), _reliability(halves[1][:, scored])
    correlation = _correlation(first.hardness[scored], second.hardness[scored])
    noisy = not min(reliability) > _MIN_RELIABILITY
    return Agreement(
        first=group_name(first), second=group_name(second), samples=int(scored.sum()),
        correlation=correlation, reliability=reliability,
        corrected=None if noisy else min(correlation / math.sqrt(math.prod(reliability)), 1.0),
    )  # fmt: skip


def _reliability(halves: Floats) -> float:
    """Return the reliability of a score from its values in two halves, (2, number of samples)."""
    r = _correlation(*halves)
    return 2 * r / (1 + r)


def _ratio(numerator: NDArray[Any], denominator: NDArray[Any]) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(numerator / denominator)


def _correlation(x: NDArray[Any], y: NDArray[Any]) -> float:
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return float(np.corrcoef(x, y)[0, 1])


def data_frame_of(groups: Sequence[SampleScores]) -> pd.DataFrame:
    """Return one row for each group and each sample that was drawn or evaluated.

    The columns are the values of the grouping keys, the global id of the sample and all scores.
    They are followed by columns such as ``drawn_n64``, sorted by n.
    """
    import pandas as pd

    frames = []
    for scores in groups:
        columns: dict[str, Any] = {
            **scores.group,
            "sample": np.arange(scores.n_total), "drawn": scores.drawn, "missed": scores.missed,
            "expected": scores.expected, "hardness": scores.hardness, "blocks": scores.blocks,
            "asked_unseen": scores.unseen, "right_unseen": scores.unseen_correct,
            "consistency": scores.consistency, "memorization": scores.memorization,
            "watched": scores.watched, "never_right": scores.never_correct,
            "forgotten": scores.forgotten, "forgetting": scores.forgetting,
        }  # fmt: skip
        for low, (drawn, fitted) in scores.by_n.items():
            columns |= {f"drawn_n{low}": drawn, f"fitted_n{low}": fitted}
        frames.append(pd.DataFrame(columns)[(scores.drawn > 0) | (scores.unseen > 0)])
    frame = pd.concat(frames, ignore_index=True)
    sizes = sorted({low for scores in groups for low in scores.by_n})
    by_n = [f"{count}_n{low}" for low in sizes for count in ("drawn", "fitted")]
    frame[by_n] = frame[by_n].fillna(0).astype(np.int64)
    return frame[[*(name for name in frame if name not in by_n), *by_n]]


def _data_and_labels(point: Point) -> dict[str, str]:
    """Return a dict with the names of a point's data set and labels.

    The name of the data set includes the values of the swept data keys except ``_NAMED_KEYS``.
    """
    data = point.data.model_dump(mode="json")
    labels = str(data.get("labels", ""))
    if labels == "corrupted":
        labels += f" {data['corruption']:g}"
    if labels and labels != "original":
        labels += f", seed {point.seed}"  # labels depend on the seed, so seeds are separate groups
    swept = {k: v for k, v in point.swept.items() if k.startswith("data.") and k not in _NAMED_KEYS}
    names = [swept_value_label(key, value) for key, value in swept.items() if value is not None]
    return {"data": ", ".join((data["source"], *names)), "labels": labels}


def group_title(scores: SampleScores) -> str:
    """Return a line that describes the data, labels and training runs of a group of points."""
    labels = f"labels {scores.group['labels']}" if scores.group["labels"] else ""
    name = ", ".join(filter(None, (scores.group["data"], labels, group_name(scores))))
    drawn = int((scores.drawn > 0).sum())
    return f"{name}: {drawn:,} samples drawn, in {scores.trainings:,} training runs"


def group_name(scores: SampleScores) -> str:
    """Return the values of the grouping keys as text, such as ``family mlp, width 8``."""
    return ", ".join(
        f"{key.split('.')[-1]} {value}"
        for key, value in scores.group.items()
        if key not in _DATA_KEYS
    )
