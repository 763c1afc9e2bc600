"""Scores of samples from fit masks, compared with plain counts and with known label noise."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import mannwhitneyu

from flexhpc.analysis.sample_views import sample_view_of
from flexhpc.analysis.samples import (
    UNINFORMATIVE,
    SampleScores,
    agreements,
    data_frame_of,
    sample_scores,
)
from flexhpc.api.runs import load
from flexhpc.data import load_samples, standard_files
from flexhpc.data.sources import open_source
from flexhpc.errors import PointError
from flexhpc.store import Masks
from tests.analysis.builders import DIGITS, points_of
from tests.command import flexhpc_output
from tests.conftest import Cli, shared_folder

SPEC = """\
name: noisy
record: {unseen: 400, forgetting: true}
fixed:
  data: {source: digits, labels: corrupted, corruption: 0.05}
  model: {family: mlp, depth: 1}
  training: {optimizer: adam, lr: 1e-2, batch_size: 64, steps: 1500}
  search: {policy: bayes, start: 64, tolerance: 0.2}
grid:
  model.width: [6, 10]
  model.activation: [relu, tanh]
"""


@pytest.fixture(scope="module")
def noisy_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with corrupted labels."""

    def measure(folder: Path) -> None:
        (folder / "noisy.yaml").write_text(SPEC)
        (folder / "p.yaml").write_text("workers: 2\ntracking_uri: none\n")
        flexhpc_output(folder, "sweep", "noisy.yaml", "--profile", "p.yaml")

    return shared_folder(tmp_path_factory, "noisy", measure) / "runs" / "noisy"


def scores(run: Path) -> SampleScores:
    loaded = load(run)
    (group,) = sample_scores((loaded.folder, measurement.status) for measurement in loaded)
    return group


def labels_of(run: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels of training, and whether each was corrupted."""
    point = load(run)[0].status.point
    samples = load_samples(point.data, point.seed)
    return samples.labels, samples.labels != samples.source.train.labels


@pytest.mark.sweeps
def test_scores_equal_plain_counts(noisy_run: Path) -> None:
    """Counts over training runs and samples, from the masks of the API."""
    fast = scores(noisy_run)
    slow = np.zeros((11, fast.n_total))
    for measurement in load(noisy_run):
        masks = measurement.masks
        drawn, fitted = masks.in_subset(), masks.fitted()
        unseen, correct = masks.evaluated_outside_subset(), masks.correct_outside_subset()
        for i, verdict in enumerate(measurement.probes["verdict"]):
            if verdict in UNINFORMATIVE:
                continue
            wrong = drawn[i] & ~fitted[i]
            share = wrong.sum() / drawn[i].sum()
            events = dict(zip(np.flatnonzero(drawn[i]), masks.forgotten[i].tolist(), strict=True))
            learnt = [count for count in events.values() if count >= 0]
            for sample in np.flatnonzero(drawn[i] | unseen[i]):
                slow[:, sample] += (
                    drawn[i, sample], wrong[sample], share * drawn[i, sample],
                    share * (1 - share) * drawn[i, sample],
                    wrong[sample] / max(wrong.sum(), 1), unseen[i, sample], correct[i, sample],
                    sample in events, events.get(sample) == -1, max(events.get(sample, 0), 0),
                    np.mean(learnt) if events.get(sample, -1) >= 0 else 0,
                )  # fmt: skip
    for name, expected in zip(
        ("drawn", "missed", "expected", "variance", "blocks", "unseen", "unseen_correct",
         "watched", "never_correct", "forgotten", "forgotten_expected"), slow, strict=True,
    ):  # fmt: skip
        counts = fast.half_variance.sum(axis=0) if name == "variance" else getattr(fast, name)
        np.testing.assert_allclose(counts, expected, atol=1e-9, err_msg=name)
    counted = [m.probes[~m.probes["verdict"].isin(UNINFORMATIVE)] for m in load(noisy_run)]
    failures = sum((probes["n_errors"] > 0).sum() for probes in counted)
    assert fast.blocks.sum() == pytest.approx(failures)
    assert fast.trainings == sum(map(len, counted))
    with np.errstate(invalid="ignore"):
        memorization = 1 - slow[1] / slow[0] - slow[6] / slow[5]
    np.testing.assert_allclose(fast.memorization, memorization)
    for low, (drawn_at_n, fitted_at_n) in fast.by_n.items():
        assert low & (low - 1) == 0
        assert (fitted_at_n <= drawn_at_n).all()
    assert (sum(drawn_at_n for drawn_at_n, _ in fast.by_n.values()) == fast.drawn).all()


@pytest.mark.full_budget
@pytest.mark.sweeps
def test_scores_detect_label_noise(noisy_run: Path) -> None:
    noisy_scores, (_, corrupted) = scores(noisy_run), labels_of(noisy_run)
    assert 0.03 < corrupted.mean() < 0.06
    assert auroc(noisy_scores.hardness, corrupted) > 0.85
    assert auroc(noisy_scores.memorization, corrupted) > 0.95
    assert auroc(-noisy_scores.consistency, corrupted) > 0.95
    assert auroc(noisy_scores.forgetting, corrupted) > 0.9


def auroc(score: np.ndarray, positive: np.ndarray) -> float:
    """Return the probability that a positive has a higher score than a negative."""
    known = np.isfinite(score)
    positives, negatives = score[known & positive], score[known & ~positive]
    return mannwhitneyu(positives, negatives).statistic / (len(positives) * len(negatives))


@pytest.mark.sweeps
def test_masks_command_agrees_in_every_format(noisy_run: Path, cli: Cli, tmp_path: Path) -> None:
    table = cli("masks", noisy_run, "--top", "5").stdout
    assert table.startswith("digits, labels corrupted 0.05, seed 0: ")
    assert len(table.splitlines()) == 8
    expected = scores(noisy_run)
    assert table.splitlines()[2].split()[0] == str(expected.hardest(1)[0])
    cli("masks", noisy_run, "--format", "parquet", "-o", tmp_path / "m.parquet")
    frame = pd.read_parquet(tmp_path / "m.parquet")
    pd.testing.assert_frame_equal(frame, data_frame_of([expected]))
    assert frame["sample"].is_unique
    cli("masks", noisy_run, "--format", "csv", "-o", tmp_path / "m.csv", "--by", "model.activation")
    grouped = pd.read_csv(tmp_path / "m.csv")
    assert set(grouped["model.activation"]) == {"relu", "tanh"}
    assert grouped["drawn"].sum() == frame["drawn"].sum()
    rows = json.loads(cli("masks", noisy_run, "--format", "json").stdout)
    assert len(rows) == len(frame)
    error = cli("masks", noisy_run, "--by", "model.nosuch", check=2).stderr
    assert "no point has this key" in error
    assert "cannot be written" in cli("masks", noisy_run, "-o", tmp_path, check=2).stderr


def test_memory_of_scores_does_not_depend_on_the_number_of_training_runs() -> None:
    n, rng = 100_000, np.random.default_rng(0)
    rows = rng.integers(0, 256, (4, n // 8), dtype=np.uint8)
    masks = Masks(
        n_total=n, n=np.full(4, n // 2), subset=rows, fit=rows & 0xF7,
        outside=np.zeros_like(rows), outside_fit=np.zeros_like(rows),
    )  # fmt: skip
    scores = SampleScores(group={"data": "x", "labels": ""}, n_total=n)
    sizes = []
    for _ in range(4):
        scores.add(masks, [True] * 4)
        sizes.append(len(pickle.dumps(scores)))
    assert sizes[1] == pytest.approx(sizes[-1], rel=0.01)
    assert sizes[-1] < 200 * n


def simulated_scores(
    difficulty: np.ndarray, rng: np.random.Generator, name: str, training_runs: int
) -> SampleScores:
    """Return scores after training runs on half of the samples that miss difficult ones more."""
    size = len(difficulty)
    scores = SampleScores(group={"data": "x", "labels": "", "k": name}, n_total=size)
    for _ in range(training_runs):
        drawn = rng.random(size) < 0.5
        missed = drawn & (rng.random(size) < 1 / (1 + np.exp(2 - difficulty)))
        subset, fit = (np.packbits(mask)[None] for mask in (drawn, drawn & ~missed))
        empty = np.zeros_like(subset)
        masks = Masks(
            n_total=size, n=np.array([drawn.sum()]), subset=subset, fit=fit, outside=empty,
            outside_fit=empty,
        )  # fmt: skip
        scores.add(masks, [True])
    return scores


@pytest.mark.parametrize("shared", [1.0, 0.5, 0.0])
def test_corrected_agreement_recovers_the_true_correlation(shared: float) -> None:
    rng = np.random.default_rng(int(10 * shared))
    first, other = rng.normal(size=(2, 3000))
    second = shared * first + np.sqrt(1 - shared**2) * other
    groups = [simulated_scores(x, rng, name, 30) for x, name in ((first, "a"), (second, "b"))]
    (agreement,) = agreements(groups)
    assert (agreement.first, agreement.second) == ("k a", "k b")
    assert min(agreement.reliability) < 0.85
    assert agreement.corrected == pytest.approx(shared, abs=0.08)
    assert abs(agreement.correlation) <= abs(agreement.corrected) + 0.02
    assert groups[0].reliability == pytest.approx(agreement.reliability[0], abs=0.01)
    unreliable = [simulated_scores(np.zeros(300), rng, name, 6) for name in "ab"]
    assert agreements(unreliable)[0].corrected is None


@pytest.mark.sweeps
def test_report_shows_hard_and_easy_samples(noisy_run: Path, cli: Cli, tmp_path: Path) -> None:
    cli("report", noisy_run, "-o", tmp_path / "report")
    page = (tmp_path / "report" / "index.html").read_text()
    section = page[page.index("<h2>Samples</h2>") :]
    expected, (labels, corrupted) = scores(noisy_run), labels_of(noisy_run)
    shown = [int(number) for number in re.findall(r'alt="sample (\d+), class \d"', section)]
    assert shown == [*expected.hardest(10), *expected.easiest(10)]
    relabelled = re.findall(r"(\d+)<br>class \d<br>trained as (\d)<br>", section)
    assert {int(sample): int(label) for sample, label in relabelled} == {
        sample: labels[sample] for sample in shown if corrupted[sample]
    }
    assert len(relabelled) > 5
    assert not expected.missed[shown[10:]].any()
    assert "missed 0 of" in section
    counts = re.findall(
        r"<tr><td class=\"text\">\d</td><td>([\d,]+)</td>\n<td>([\d,]+)</td>", section
    )
    drawn, missed = (sum(int(row[i].replace(",", "")) for row in counts) for i in (0, 1))
    assert (drawn, missed) == (expected.drawn.sum(), expected.missed.sum())
    assert "requires --by" in cli("masks", noisy_run, "--agreement", check=2).stderr
    table = cli("masks", noisy_run, "--agreement", "--by", "model.activation").stdout
    assert "activation relu" in table
    assert "activation tanh" in table


def test_pictures_download_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLEXHPC_DATA", raising=False)
    (point,) = points_of(tmp_path, DIGITS.replace("digits", "cifar10"))
    downloads: list[str] = []

    def download(source: str, root: Path) -> str:
        downloads.append(source)
        return "no"

    monkeypatch.setattr(standard_files, "_download", download)
    missing = SampleScores(group={"data": "cifar10", "labels": ""}, n_total=50_000, point=point)
    missing.half_missed[0, 3] = 1
    assert sample_view_of(missing) is None
    assert downloads == []
    with pytest.raises(PointError, match="was not found"):
        open_source(point.data, 0)
    assert downloads == ["cifar10"]


@pytest.mark.parametrize(
    ("keys", "labels", "named"),
    [
        ("", "cat dog", True),
        (", labels: random", "cat dog", True),
        (", labels: random, classes: 5", "cat dog", False),
        (", class_map: [1, 0]", "cat dog", False),
        (", labels: random, classes: 8", "3 7", False),
    ],
)
def test_pictures_name_the_classes(tmp_path: Path, keys: str, labels: str, named: bool) -> None:
    """Labels of other classes than those of the data set are always shown, as numbers."""
    images = np.random.default_rng(0).integers(0, 255, (60, 1, 6, 6), dtype=np.uint8)
    names = labels.split()
    np.savez(tmp_path / "pets.npz", x=images, y=np.array(names)[np.arange(60) % 2])
    data = f"source: arrays, path: {tmp_path}/pets.npz{keys}"
    (point,) = points_of(tmp_path, DIGITS.replace("source: digits", data))
    scores = SampleScores(group={"data": "arrays", "labels": ""}, n_total=60, point=point)
    scores.half_missed[:] = 1
    scores.half_variance[:] = 1
    scores.drawn[:] = 4
    view = sample_view_of(scores)
    trained_labels = load_samples(point.data, point.seed).labels
    for picture in view.hardest:
        assert picture.label == names[picture.sample % 2]
        trained = trained_labels[picture.sample]
        if named:
            expected = None if trained == picture.sample % 2 else names[trained]
        else:
            expected = str(trained)
        assert picture.trained_label == expected
    assert [label for label, *_ in view.classes] == names
    assert "mostly noise (reliability: unknown)" in view.note
    scores.half_missed[:] = np.arange(60)
    assert sample_view_of(scores).note == "Reliability of the hardness: 1.00."
